"""The context of a session in the database: what a run leaves there, and what the next one is told of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, SessionId
from db.pool import Database
from db.stores.calibrations import CalibrationStore
from db.stores.context import ContextStore
from db.stores.events import EventStore
from db.stores.steering import SteeringStore
from db.stores.usage import UsageStore
from services.agent.types import ChatMessage, ToolCall, ToolCallMessage, ToolResultMessage
from services.casting import Casting
from services.context.items import BROKEN_OFF_NOTE, INTERRUPTED_NOTE, Item, encode
from services.context.tokens import TokenCounter
from services.conversation.calibrations import Calibrations
from services.conversation.compactor import Compactor, SummarySettings
from services.conversation.opening import ContextLimits, Conversations
from services.conversation.running import RunConversation
from services.errors import LeaseLost
from services.files.attachments import Attachments
from services.inbox import Send
from services.runs.active import ActiveRun
from services.runs.feed import Feeds
from services.runs.journal import Journal
from services.telemetry.meters import Meters
from services.usage.quota import Quota
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Status, Text
from tests.fakes.strict import complaints_about
from tests.integration.runs.conftest import open_replica, read_until
from tests.waiting import eventually

LOOK = ToolCallMessage("Let me see. ", (ToolCall("call_1", "look", "{}"),))
FOUND = ToolResultMessage("call_1", "look", "a needle")


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database, None]:
    """The database of the services, for stores of one's own."""
    database = await Database.connect(database_url, size=2)
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> ContextStore:
    """The store behind the services."""
    return ContextStore(database)


@pytest.fixture
def conversations(database: Database, services: Services) -> Conversations:
    """What opens conversations as the services do."""
    return conversations_over(database, services)


def conversations_over(database: Database, services: Services) -> Conversations:
    events, tokens, store = EventStore(database), TokenCounter(), ContextStore(database)
    journal = Journal(events, Feeds(events), Meters().journal, lease_seconds=1, pending_characters=1_000)
    compactor = Compactor(store, tokens, services.providers, journal, SummarySettings(None, None, 5))
    return Conversations(
        store,
        SteeringStore(database),
        tokens,
        compactor,
        Calibrations(CalibrationStore(database)),
        ContextLimits(8192, 512, 0.8),
        Attachments(services.files, tokens, tokens_each=100),
        Quota(UsageStore(database), tokens_per_day=0),
    )


async def streaming(
    services: Services, session_id: SessionId, model: OpenAIFake, words: str = "Let me see. "
) -> ActiveRun:
    """A run whose model has said so much and hangs."""
    model.script(Text(words), Hang())
    await services.chat.send(LOCAL_OWNER, session_id, Send(["Look!"]))
    await eventually(lambda: any(run.draft.text == words for run in services.engine.performing), 5)
    return services.engine.performing[0]


async def conversation_of(run: ActiveRun, services: Services, conversations: Conversations) -> RunConversation:
    casting = Casting(None, None, "You", services.providers.get("openai"), "fake-small", {})
    return await conversations.open(run, casting, "Be brief.")


async def told_next(services: Services, session_id: SessionId, model: OpenAIFake) -> list[dict[str, Any]]:
    """What the model is told when the user goes on."""
    asked = len(model.requests)
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send(["Go on."], when_busy="queue"))
        await read_until(attachment, "post_response_complete")
    messages = model.requests[asked].body["messages"]
    assert complaints_about(messages) == []
    return messages


async def test_exchange_with_a_tool_is_told_again_in_the_next_turn(
    services: Services, session_id: SessionId, model: OpenAIFake, conversations: Conversations
):
    run = await streaming(services, session_id, model)
    conversation = await conversation_of(run, services, conversations)
    await conversation.add([LOOK])
    await conversation.add([FOUND])
    run.stop("user")

    _, calls, result, rest, _ = await told_next(services, session_id, model)
    assert calls["content"] == "Let me see. "
    assert [call["id"] for call in calls["tool_calls"]] == ["call_1"]
    assert (result["tool_call_id"], result["content"]) == ("call_1", "a needle")
    assert rest == {"role": "assistant", "content": INTERRUPTED_NOTE}


async def test_text_after_an_exchange_is_told_once(
    services: Services, session_id: SessionId, model: OpenAIFake, database_url: str, conversations: Conversations
):
    run = await streaming(services, session_id, model, "Let me see. There it is.")
    conversation = await conversation_of(run, services, conversations)
    await conversation.add([LOOK])
    await conversation.add([FOUND])
    run.stop("user")

    messages = await told_next(services, session_id, model)
    assert messages[3] == {"role": "assistant", "content": f"There it is.\n\n{INTERRUPTED_NOTE}"}
    connection = await asyncpg.connect(database_url)
    spent = await connection.fetchrow(
        """
        SELECT context_tokens, token_count, (SELECT sum(token_count) FROM context_items) AS items
        FROM messages WHERE id = $1
        """,
        run.draft.message_id,
    )
    await connection.close()
    assert spent is not None
    assert spent["context_tokens"] > spent["items"] > spent["token_count"]


async def test_call_that_was_never_made_is_told_as_such(
    services: Services, session_id: SessionId, model: OpenAIFake, conversations: Conversations
):
    run = await streaming(services, session_id, model)
    conversation = await conversation_of(run, services, conversations)
    await conversation.add([LOOK])
    run.stop("user")

    messages = await told_next(services, session_id, model)
    assert "Nothing was done" in messages[2]["content"]


async def test_ordinary_turn_leaves_no_items(
    services: Services, session_id: SessionId, model: OpenAIFake, store: ContextStore
):
    await told_next(services, session_id, model)
    (question, reply) = (await services.messages.page(LOCAL_OWNER, session_id, before=None, limit=9)).messages[::-1]
    stretch = await store.newest(session_id, reply.id, token_budget=1000, overhead=4)
    assert [message.id for message in stretch.messages] == [question.id, reply.id]
    assert [message.items for message in stretch.messages] == [(), ()]
    assert [message.context_tokens for message in stretch.messages] == [None, None]
    assert stretch.is_whole


async def test_what_a_run_adds_is_refused_when_its_session_belongs_to_another(
    services: Services,
    session_id: SessionId,
    model: OpenAIFake,
    store: ContextStore,
    database_url: str,
    conversations: Conversations,
):
    run = await streaming(services, session_id, model)
    conversation = await conversation_of(run, services, conversations)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE journals SET fence = fence + 1")
    await connection.close()

    with pytest.raises(LeaseLost):
        await conversation.add([LOOK])
    assert run.is_lost
    assert run.draft.message_id
    assert await store.items(run.draft.message_id) == []


async def test_items_that_were_stored_without_an_answer_are_not_stored_twice(
    services: Services, session_id: SessionId, model: OpenAIFake, store: ContextStore
):
    run = await streaming(services, session_id, model)
    assert run.draft.message_id
    items = [encode(Item(LOOK, 20)), encode(Item(FOUND, 30))]
    for _ in range(2):
        assert await store.add(run.claimed, run.draft.message_id, 0, items)
    assert await store.items(run.draft.message_id) == items
    run.stop("user")


async def test_reply_whose_owner_died_keeps_its_items_and_says_that_it_broke_off(
    database_url: str, model: OpenAIFake, database: Database
):
    async with open_replica(database_url, model) as dying:
        session_id = (await dying.sessions.create(LOCAL_OWNER)).id
        run = await streaming(dying, session_id, model, "Let me see. There")
        conversation = await conversation_of(run, dying, conversations_over(database, dying))
        await conversation.add([LOOK, FOUND])
        await run.log.room()
        async with dying.chat.attach(LOCAL_OWNER, session_id, after=0) as attachment:
            await read_until(attachment, "text_delta")
        run.lose()
        await eventually(lambda: not dying.engine.performing, 5)
    async with open_replica(database_url, model, is_alone=True) as heir:
        messages = await told_next(heir, session_id, model)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[3]["content"] == f"There\n\n{BROKEN_OFF_NOTE}"


async def test_conversation_that_somebody_else_began_goes_on_from_its_items(
    services: Services, session_id: SessionId, model: OpenAIFake, store: ContextStore, conversations: Conversations
):
    run = await streaming(services, session_id, model)
    await (await conversation_of(run, services, conversations)).add([LOOK, FOUND])

    again = await conversation_of(run, services, conversations)
    await again.add([ChatMessage("user", "And quickly.")])

    assert run.draft.message_id
    assert len(await store.items(run.draft.message_id)) == 3
    given = await again.window()
    assert list(given.messages) == [ChatMessage("user", "Look!"), LOOK, FOUND, ChatMessage("user", "And quickly.")]
    run.stop("user")


async def test_model_that_finds_it_too_long_is_given_less_until_nothing_can_go(
    services: Services, session_id: SessionId, model: OpenAIFake, conversations: Conversations
):
    for _ in range(3):
        model.reply("word " * 500)
        await told_next(services, session_id, model)
    run = await streaming(services, session_id, model)
    conversation = await conversation_of(run, services, conversations)
    lengths = [len((await conversation.window()).messages)]
    async with asyncio.timeout(5):
        while await conversation.shrink():
            lengths.append(len((await conversation.window()).messages))
    assert len(lengths) > 1
    assert lengths == sorted(lengths, reverse=True)
    assert [message.content for message in (await conversation.window()).messages][-1] == "Look!"
    run.stop("user")


async def test_request_that_the_server_finds_too_long_is_made_again_once_and_shorter(
    services: Services, session_id: SessionId, model: OpenAIFake
):
    for _ in range(3):
        model.reply("word " * 500)
        await told_next(services, session_id, model)
    model.script(Status(400, "This model's maximum context length is 900 tokens.", "context_length_exceeded"))
    model.reply("Shorter is better.")

    refused = await told_next(services, session_id, model)
    taken = model.requests[-1].body["messages"]
    assert 0 < len(taken) < len(refused)
    assert taken[-1] == refused[-1]
    newest = (await services.messages.page(LOCAL_OWNER, session_id, before=None, limit=1)).messages[0]
    assert (newest.content, newest.finish_reason) == ("Shorter is better.", "stop")
