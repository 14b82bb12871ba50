"""What the service does for itself after a reply: titles, and how such jobs are kept, stopped and taken over."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, SessionId
from services.chat import Attachment
from services.errors import NothingRunning
from services.inbox import Send
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Body, Hang, Status, Text, Thinking, Wait
from tests.integration.runs.conftest import open_replica, read_until
from tests.waiting import eventually

WITH_MODEL: dict[str, Any] = {"titles": {"model": "namer"}}


class Watched:
    """A new session whose events are read."""

    def __init__(self, services: Services, session_id: SessionId, attachment: Attachment) -> None:
        self.services, self.session_id, self.attachment = services, session_id, attachment

    async def say(self, text: str, until: str = "session_updated", **fields: Any) -> list[Frame]:
        await self.services.chat.send(LOCAL_OWNER, self.session_id, Send([text], **fields))
        async with asyncio.timeout(10):
            return await read_until(self.attachment, until)

    async def title(self) -> str | None:
        return (await self.services.sessions.get(LOCAL_OWNER, self.session_id)).title

    async def settled(self) -> None:
        """No work is left, here or in the database."""
        await eventually(lambda: not self.services.afterwork.working)


@asynccontextmanager
async def watching(services: Services, **fields: Any):
    session_id = (await services.sessions.create(LOCAL_OWNER, **fields)).id
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        yield Watched(services, session_id, attachment)


async def rows(database_url: str, session_id: SessionId) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch(
            "SELECT state, jobs, is_told, usage FROM post_responses WHERE session_id = $1 ORDER BY position", session_id
        )
    finally:
        await connection.close()


async def test_without_a_model_the_first_words_are_the_title(database_url: str, model: OpenAIFake):
    async with open_replica(database_url, model, titles={}) as services, watching(services) as chat:
        frames = await chat.say("# Tell me\nabout ships")
        assert [frame.type for frame in frames][-2:] == ["post_response_complete", "session_updated"]
        told = orjson.loads(frames[-1].text)
        assert (told["title"], "run_id" in told) == ("Tell me", False)
        assert await chat.title() == "Tell me"
        await chat.settled()
        assert len(model.requests) == 1
        frames = await chat.say("And more", until="post_response_complete")
        assert "session_updated" not in [frame.type for frame in frames]
        assert len(await rows(database_url, chat.session_id)) == 1, "what has a title leaves no work"


async def test_a_small_model_names_the_session_and_its_cost_is_kept(database_url: str, model: OpenAIFake):
    model.reply("Ships float.")
    model.script(Thinking("hmm"), Text('"Ships at'), Text(' Sea."\nHope you like it'))
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        await chat.say("Why do ships float?")
        assert await chat.title() == "Ships at Sea"
        await chat.settled()
        (row,) = await rows(database_url, chat.session_id)
        assert (row["state"], row["jobs"], row["is_told"]) == ("done", ["title"], True)
        assert orjson.loads(row["usage"])["title"]["output_tokens"] > 0
    asked = (await model.request(1)).body
    assert asked["model"] == "namer"
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "Why do ships float?" in asked["messages"][1]["content"]
    assert "Ships float." in asked["messages"][1]["content"]


@pytest.mark.parametrize(
    "failing",
    [
        (Status(401, "your key is wrong"),),
        (Body("<html>Bad gateway</html>"),),
        (Text("x" * 5_000),),
        (Text("***"),),
    ],
)
async def test_a_model_that_fails_never_becomes_a_title(database_url: str, model: OpenAIFake, failing: Any):
    model.reply("Fine.")
    model.script(*failing)
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        await chat.say("How are you today?")
        assert await chat.title() == "How are you today?"


async def test_an_unknown_connection_falls_back_to_the_first_words(database_url: str, model: OpenAIFake):
    settings: dict[str, Any] = {"titles": {"connection": "nowhere"}}
    async with open_replica(database_url, model, **settings) as services, watching(services) as chat:
        await chat.say("How are you today?")
        assert await chat.title() == "How are you today?"


@pytest.mark.parametrize("given", ["Mine", None])
async def test_whoever_has_a_say_in_the_title_is_not_overruled(database_url: str, model: OpenAIFake, given: str | None):
    async with open_replica(database_url, model, titles={}) as services:
        async with watching(services, title=given) as chat:
            await chat.say("Hello", until="post_response_complete")
            assert await rows(database_url, chat.session_id) == []
            assert await chat.title() == given
        async with watching(services) as chat:
            await services.sessions.update(LOCAL_OWNER, chat.session_id, {"title": given}, version=None)
            await chat.say("Hello", until="post_response_complete")
            assert await chat.title() == given


async def test_a_title_that_is_given_while_the_model_thinks_stays(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    model.reply("Fine.")
    model.script(Wait(gate), Text("Of the model"))
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        await chat.say("Hello", until="post_response_complete")
        await model.request(1)
        await services.sessions.update(LOCAL_OWNER, chat.session_id, {"title": "Mine"}, version=None)
        gate.set()
        await chat.settled()
        assert await chat.title() == "Mine"


async def test_nothing_waits_for_a_title(database_url: str, model: OpenAIFake):
    model.reply("One.")
    model.script(Hang())
    model.reply("Two.")
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        first = await chat.say("Hello", until="post_response_complete")
        await model.request(1)
        assert orjson.loads(first[-1].text)["modules"] == []
        second = await chat.say("More", until="post_response_complete")
        assert "assistant_end" in [frame.type for frame in second]
        assert await chat.title() is None


async def test_an_interrupt_stops_a_title_only_if_its_run_is_named(database_url: str, model: OpenAIFake):
    model.reply("One.")
    model.script(Hang())
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        frames = await chat.say("Hello", until="post_response_complete")
        request = await model.request(1)
        with pytest.raises(NothingRunning):
            await services.chat.interrupt(LOCAL_OWNER, chat.session_id, None)
        assert frames[-1].run_id is not None
        await services.chat.interrupt(LOCAL_OWNER, chat.session_id, frames[-1].run_id)
        await asyncio.wait_for(request.closed, 5)
        await chat.settled()
        (row,) = await rows(database_url, chat.session_id)
        assert (row["state"], await chat.title()) == ("done", None)
        session = await services.sessions.get(LOCAL_OWNER, chat.session_id)
        assert session.last_seq == frames[-1].seq, "not a word of it is told"


async def test_a_title_is_found_by_another_replica_if_its_owner_goes(database_url: str, model: OpenAIFake):
    model.reply("One.")
    model.script(Hang())
    model.reply("Found after all")
    async with open_replica(database_url, model, **WITH_MODEL) as second:
        async with open_replica(database_url, model, **WITH_MODEL) as first:
            session_id = (await first.sessions.create(LOCAL_OWNER)).id
            async with second.chat.attach(LOCAL_OWNER, session_id) as attachment:
                await first.chat.send(LOCAL_OWNER, session_id, Send(["Hello"]))
                frames = await read_until(attachment, "post_response_complete")
                await model.request(1)
        async with second.chat.attach(LOCAL_OWNER, session_id, after=frames[-1].seq) as attachment:
            async with asyncio.timeout(10):
                frames = await read_until(attachment, "session_updated")
        assert [frame.type for frame in frames] == ["session_updated"]
        assert (await second.sessions.get(LOCAL_OWNER, session_id)).title == "Found after all"


async def test_a_session_that_is_deleted_meanwhile_ends_its_jobs(database_url: str, model: OpenAIFake):
    model.reply("One.")
    model.script(Hang())
    async with open_replica(database_url, model, **WITH_MODEL) as services, watching(services) as chat:
        await chat.say("Hello", until="post_response_complete")
        request = await model.request(1)
        await services.sessions.delete(LOCAL_OWNER, chat.session_id, version=None)
        await asyncio.wait_for(request.closed, 5)
        await chat.settled()


async def test_a_stopped_reply_leaves_the_title_to_the_next_one(database_url: str, model: OpenAIFake):
    model.script(Text("Half"), Hang())
    async with open_replica(database_url, model, titles={}) as services, watching(services) as chat:
        await chat.say("First words", until="text_delta")
        await services.chat.interrupt(LOCAL_OWNER, chat.session_id, None)
        await read_until(chat.attachment, "assistant_end")
        assert await chat.title() is None
        await chat.say("Second words")
        assert await chat.title() == "Second words"
