"""What becomes of conversations that are longer than their model's window."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import orjson
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, SessionId, new_id
from services.chat import Attachment
from services.context.summaries import TAG
from services.inbox import Send
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Cut, Finish, Hang, Status, Step, Text, Tokens, Wait
from tests.fakes.server import Recorded
from tests.fakes.strict import complaints_about
from tests.integration.runs.conftest import open_replica, read_until
from tests.waiting import eventually

CONTEXT = {"reply_tokens": 200, "default_window": 3000}
OLD_TOKENS = 150
SUMMARY = "They talked about facts, and the user likes tea."


@pytest.fixture
async def small(model: OpenAIFake) -> OpenAIFake:
    """A model whose window holds some ten of the old messages."""
    model.models[0]["context_length"] = 3000
    return model


@pytest.fixture
async def services(database_url: str, small: OpenAIFake) -> AsyncGenerator[Services, None]:
    """A replica that talks to the small model."""
    async with open_replica(database_url, small, context=CONTEXT) as opened:
        yield opened


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A look into the database from behind."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def write_history(database: asyncpg.Connection, session_id: SessionId, messages: int) -> None:
    """Old messages, in which `fact 0` is the oldest fact."""
    ids = [new_id() for _ in range(messages)]
    rows = [
        (id, session_id, parent, ("user", "assistant")[n % 2], f"fact {n}. " + "word " * (OLD_TOKENS - 10), OLD_TOKENS)
        for n, (id, parent) in enumerate(zip(ids, [None, *ids], strict=False))
    ]
    columns = ["id", "session_id", "parent_id", "role", "content", "token_count"]
    await database.copy_records_to_table("messages", records=rows, columns=columns)
    await database.execute("UPDATE sessions SET active_leaf_id = $2 WHERE id = $1", session_id, ids[-1])


async def say(
    services: Services, session_id: SessionId, content: str = "And now?", *, until: str = "post_response_complete"
) -> list[Frame]:
    """The events of one turn to its last, or to another one."""
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send([content]))
        return await read_until(attachment, until)


def of(frames: list[Frame], type: str) -> list[dict[str, Any]]:
    return [orjson.loads(frame.text) for frame in frames if frame.type == type]


def told(request: Recorded) -> list[str]:
    """What each message of a request says."""
    messages = request.body["messages"]
    assert complaints_about(messages) == []
    return [message["content"] for message in messages]


def is_summarizing(request: Recorded) -> bool:
    return f"<{TAG}>" in told(request)[-1]


async def summaries(database: asyncpg.Connection) -> list[asyncpg.Record]:
    return await database.fetch("SELECT * FROM context_summaries ORDER BY created_at")


# --- before a call --------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_summarized_before_the_model_is_asked(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 40)
    small.script(Text(SUMMARY), Tokens(2000, 20))
    small.script(Text("Tea."), Tokens(1000, 5))

    frames = await say(services, session_id)

    asked, answered = small.requests
    assert is_summarizing(asked)
    assert "fact 28." in told(asked)[-1]
    window = told(answered)
    assert SUMMARY in window[0]
    assert "not by the user" in window[0]
    assert window[-1] == "And now?"
    assert any(text.startswith("fact 39.") for text in window)
    (compacted,) = of(frames, "context_compacted")
    (usage,) = of(frames, "context_usage")
    assert compacted["run_id"] == usage["run_id"]
    assert compacted["after"] == usage["tokens"] < compacted["before"]
    assert usage["parts"]["summary"] > 0
    assert len(window) - 2 + compacted["summarized_messages"] == 40
    (end,) = of(frames, "assistant_end")
    assert (end["usage"]["input_tokens"], end["usage"]["output_tokens"]) == (3000, 25)
    (stored,) = await summaries(database)
    assert (stored["kind"], stored["text"], stored["usage"]) == ("summary", SUMMARY, None)
    history = await services.messages.page(LOCAL_OWNER, session_id, before=None, limit=100)
    assert len(history.messages) == 42


async def test_next_turns_go_on_from_the_summary_without_another(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 40)
    small.reply(SUMMARY)
    await say(services, session_id)
    first = told(small.requests[-1])
    frames = await say(services, session_id, "And then?")

    assert of(frames, "context_compacted") == []
    assert [is_summarizing(request) for request in small.requests] == [True, False, False]
    assert told(small.requests[-1])[: len(first)] == first, "what a provider has cached stays as it was"


@pytest.mark.parametrize(
    "steps",
    [
        (Status(400, "no"),),
        (Status(401, "no key"),),
        (Cut(),),
        (Text(" "),),
        (Text("..."),),
        (Text("again " * 2000),),
        (Text("half a summ"), Finish("length")),
        (Text("I"), Finish("content_filter")),
        (Text("They "), Hang()),
        (Hang(),),
    ],
)
async def test_summary_that_fails_leaves_the_oldest_out_with_a_mark(
    database_url: str, small: OpenAIFake, database: asyncpg.Connection, steps: tuple[Step, ...]
):
    hasty = {"lease": 1, "drain": 1, "summary": 1}
    async with open_replica(database_url, small, context=CONTEXT, timeouts=hasty) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        await write_history(database, session_id, 40)
        for _ in range(3 if isinstance(steps[0], Cut) else 1):
            small.script(*steps)

        frames = await say(services, session_id)

    window = told(small.requests[-1])
    assert "were left out here" in window[0]
    assert window[-1] == "And now?"
    assert len(of(frames, "context_compacted")) == 1
    assert of(frames, "assistant_end")[0]["finish_reason"] == "stop"
    (stored,) = await summaries(database)
    assert (stored["kind"], stored["model"]) == ("marker", None)


async def test_what_was_only_left_out_is_summarized_as_soon_as_that_is_possible(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 20)
    small.script(Status(400, "no"))
    await say(services, session_id)
    (marker,) = await summaries(database)
    small.script(Text("long " * 1500))
    small.reply(SUMMARY)
    await say(services, session_id)
    await eventually(lambda: any(is_summarizing(request) for request in small.requests[2:]), 10)
    behind_the_mark = [f"fact {n}." for n in range(marker["summarized_messages"])]
    assert any(fact in told(small.requests[-1])[-1] for fact in behind_the_mark)
    async with asyncio.timeout(10):
        while len(await summaries(database)) < 2:
            await asyncio.sleep(0.02)
    assert [row["kind"] for row in await summaries(database)] == [marker["kind"], "summary"]


async def test_new_summary_carries_over_the_one_before(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 40)
    small.reply(SUMMARY)
    await say(services, session_id)
    small.script(Text("long " * 1500))
    small.reply("Both of it.")
    await say(services, session_id)
    async with asyncio.timeout(10):
        while len(await summaries(database)) < 2:
            await asyncio.sleep(0.02)
    assert f"Summary of what came before: {SUMMARY}" in told(small.requests[-1])[-1]
    first, second = await summaries(database)
    assert second["summarized_messages"] > first["summarized_messages"]
    small.reply("Fine.")
    await say(services, session_id)
    assert "Both of it." in told(small.requests[-1])[0]


async def test_interrupt_while_it_is_summarized_stops_the_model_and_leaves_no_trace(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 40)
    small.script(Text("They"), Hang())
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send(["And now?"]))
        request = await small.request()
        await services.chat.interrupt(LOCAL_OWNER, session_id, None)
        frames = await read_until(attachment, "assistant_end")
    assert await asyncio.wait_for(asyncio.shield(request.closed), 5)
    assert request.ended_by == "client"
    assert of(frames, "interrupted")[0]["phase"] == "composing"
    assert await summaries(database) == []
    small.reply(SUMMARY)
    frames = await say(services, session_id, "Again?")
    assert of(frames, "assistant_end")[0]["finish_reason"] == "stop"


async def test_another_model_may_summarize(database_url: str, small: OpenAIFake, database: asyncpg.Connection):
    context = CONTEXT | {"summary_model": "fake-tiny", "summary_connection": "openai"}
    async with open_replica(database_url, small, context=context) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        await write_history(database, session_id, 40)
        small.reply(SUMMARY)
        await say(services, session_id)
    assert [request.body["model"] for request in small.requests] == ["fake-tiny", "fake-small"]


async def test_a_users_own_server_summarizes_with_the_model_that_it_has(
    database_url: str, small: OpenAIFake, database: asyncpg.Connection
):
    async with open_replica(database_url, small, context=CONTEXT | {"summary_model": "of-the-operator"}) as services:
        own = {"name": "mine", "kind": "openai", "base_url": small.url, "default_model": "fake-small"}
        await services.saved_connections.service.create(LOCAL_OWNER, own)
        session_id = (await services.sessions.create(LOCAL_OWNER, connection="mine")).id
        await write_history(database, session_id, 40)
        small.reply(SUMMARY)
        await say(services, session_id)
    assert [request.body["model"] for request in small.requests] == ["fake-small", "fake-small"]
    assert [row["kind"] for row in await summaries(database)] == ["summary"]


async def test_summarizer_that_does_not_exist_is_no_reason_not_to_answer(
    database_url: str, small: OpenAIFake, database: asyncpg.Connection
):
    async with open_replica(database_url, small, context=CONTEXT | {"summary_connection": "azure"}) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        await write_history(database, session_id, 40)
        frames = await say(services, session_id)
    assert of(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert "were left out here" in told(small.requests[-1])[0]


async def test_demo_makes_no_summaries_and_says_that_something_is_missing(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 80)
    await services.sessions.update(LOCAL_OWNER, session_id, {"connection": "demo"}, version=None)
    frames = await say(services, session_id)
    assert len(of(frames, "context_compacted")) == 1
    assert [row["kind"] for row in await summaries(database)] == ["marker"]
    assert small.requests == []


async def test_message_that_is_too_long_for_the_model_says_what_to_shorten(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await write_history(database, session_id, 40)
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send(["word " * 4000]))
        frames = await read_until(attachment, "assistant_end")
    (error,) = of(frames, "error")
    assert error["code"] == "context_too_long"
    assert "Shorten the message" in error["message"]
    assert small.requests == [], "no summary is made for what cannot be sent anyway"


# --- after a reply --------------------------------------------------------------------------------------------------


async def crowded(services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection) -> None:
    """A session in which the next reply passes the threshold, while everything still fits."""
    await write_history(database, session_id, 14)
    small.reply("long " * 200)


async def test_context_that_is_nearly_full_is_summarized_after_the_reply(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await crowded(services, session_id, small, database)
    small.script(Text(SUMMARY), Tokens(1500, 20))

    frames = await say(services, session_id, until="context_compacted")

    (end,) = of(frames, "assistant_end")
    (compacted,) = of(frames, "context_compacted")
    assert "run_id" not in compacted
    assert end["usage"]["input_tokens"] == 10, "the reply is not charged with what came after it"
    assert end["seq"] < compacted["seq"]
    (stored,) = await summaries(database)
    assert stored["kind"] == "summary"
    async with asyncio.timeout(5):
        while not (spent := await database.fetchval("SELECT usage->>'summary' FROM post_responses")):
            await asyncio.sleep(0.02)
    assert orjson.loads(spent)["input_tokens"] == 1500
    await say(services, session_id, "And then?")
    assert SUMMARY in told(small.requests[-1])[0]


async def test_next_message_does_not_wait_for_the_summary(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await crowded(services, session_id, small, database)
    gate = asyncio.Event()
    small.script(Text("They "), Wait(gate), Text("drank tea."))
    small.reply("At once.")
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send(["And now?"]))
        await small.request(1)
        await services.chat.send(LOCAL_OWNER, session_id, Send(["And then?"]))
        await _replies(attachment, "At once.")
        assert await summaries(database) == []
        gate.set()
        await read_until(attachment, "context_compacted")
    (stored,) = await summaries(database)
    assert stored["text"] == "They drank tea."


async def _replies(attachment: Attachment, text: str) -> None:
    while True:
        frames = await read_until(attachment, "assistant_end")
        if text in "".join(delta["delta"] for delta in of(frames, "text_delta")):
            return


async def test_summary_whose_maker_died_is_made_by_the_next(
    database_url: str, small: OpenAIFake, database: asyncpg.Connection
):
    async with open_replica(database_url, small, context=CONTEXT) as dying:
        session_id = (await dying.sessions.create(LOCAL_OWNER)).id
        await crowded(dying, session_id, small, database)
        small.script(Text("They"), Hang())
        await dying.chat.send(LOCAL_OWNER, session_id, Send(["And now?"]))
        await small.request(1)
    assert await summaries(database) == []
    small.reply(SUMMARY)
    async with open_replica(database_url, small, context=CONTEXT):
        async with asyncio.timeout(10):
            while not await summaries(database):
                await asyncio.sleep(0.02)
    assert [row["text"] for row in await summaries(database)] == [SUMMARY]


async def test_stopping_the_work_after_a_reply_stops_the_summary(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    await crowded(services, session_id, small, database)
    small.script(Text("They"), Hang())
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        sent = await services.chat.send(LOCAL_OWNER, session_id, Send(["And now?"]))
        request = await small.request(1)
        await read_until(attachment, "post_response_complete")
        await services.chat.interrupt(LOCAL_OWNER, session_id, sent.run.id)
    await asyncio.wait_for(request.closed, 5)
    assert request.ended_by == "client"
    assert await summaries(database) == []


async def test_short_conversation_is_left_alone(services: Services, session_id: SessionId, small: OpenAIFake):
    frames = await say(services, session_id)
    assert of(frames, "context_compacted") == []
    assert len(small.requests) == 1


# --- what a server counts -------------------------------------------------------------------------------------------


async def test_server_that_counts_more_than_we_do_is_given_less_and_remembered(
    database_url: str, small: OpenAIFake, database: asyncpg.Connection
):
    async with open_replica(database_url, small, context=CONTEXT) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        await write_history(database, session_id, 10)
        small.script(Text("Fine."), Tokens(2400, 5))
        (first,) = of(await say(services, session_id), "context_usage")
        (second,) = of(await say(services, session_id), "context_usage")
    assert (first["factor"], first["limit"]) == (1.0, 3000)
    assert 1.4 < second["factor"] < 1.7
    assert second["limit"] == 3000
    assert second["tokens"] > first["tokens"] * 1.4
    assert sum(tokens for part, tokens in second["parts"].items() if part != "reserve") == second["tokens"]
    async with open_replica(database_url, small, context=CONTEXT) as services:
        (again,) = of(await say(services, session_id), "context_usage")
    assert abs(again["factor"] - second["factor"]) < 0.2


async def test_windows_of_a_model_whose_server_counts_double_hold_half(
    services: Services, session_id: SessionId, small: OpenAIFake, database: asyncpg.Connection
):
    owned = (
        "INSERT INTO context_calibrations (owner_id, connection, model, factor) VALUES ($1, 'openai', 'fake-small', 2)"
    )
    await database.execute(owned, LOCAL_OWNER)
    await write_history(database, session_id, 14)
    small.reply(SUMMARY)
    (usage,) = of(await say(services, session_id), "context_usage")
    assert usage["factor"] == 2
    assert usage["tokens"] + usage["parts"]["reserve"] <= 3000
    assert len(told(small.requests[-1])) <= 8
