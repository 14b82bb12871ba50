"""What was shown is stored, whatever happens to the database in between."""

import asyncio
import hashlib
from typing import Any

import orjson
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, SessionId
from services.inbox import Send
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.runs.conftest import open_replica, read_until
from tests.postgres_proxy import proxied


def text_of(frames: list[Frame]) -> str:
    return "".join(orjson.loads(frame.text)["delta"] for frame in frames if frame.type == "text_delta")


def assert_gapless(frames: list[Frame]) -> None:
    seqs = [frame.seq for frame in frames]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def history(services: Services, session_id: SessionId) -> list[tuple[str, str]]:
    page = await services.messages.page(LOCAL_OWNER, session_id, before=None, limit=100)
    return [(message.role, message.content) for message in reversed(page.messages)]


async def test_a_reply_is_stored_as_it_was_shown(services: Services, model: OpenAIFake, session_id: SessionId):
    model.reply("Hel", "lo, ", "wörld ", "🙂")
    async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
        await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
        frames = await read_until(attachment, "post_response_complete")

    end = orjson.loads(next(frame.text for frame in frames if frame.type == "assistant_end"))
    assert text_of(frames) == "Hello, wörld 🙂"
    assert end["text_sha256"] == hashlib.sha256("Hello, wörld 🙂".encode()).hexdigest()
    assert await history(services, session_id) == [("user", "Hi"), ("assistant", "Hello, wörld 🙂")]
    assert_gapless(frames)
    assert frames[0].seq == 1


@pytest.mark.parametrize("marker", [b"text_delta", b"assistant_end", b"message_accepted"])
async def test_a_commit_that_was_not_answered_happens_once(database_url: str, model: OpenAIFake, marker: bytes):
    gate = asyncio.Event()
    model.script(Text("one "), Text("two "), Wait(gate), Text("three"))
    async with (
        proxied(database_url) as (url, proxy),
        open_replica(url, model, timeouts={"lease": 5.0}) as services,
    ):
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
            if marker == b"message_accepted":
                proxy.swallow_next_answer_to = marker
            await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
            frames = await read_until(attachment, "text_delta")
            if marker != b"message_accepted":
                proxy.swallow_next_answer_to = marker
            gate.set()
            frames += await read_until(attachment, "post_response_complete")

        assert proxy.swallowed == 1
        assert_gapless(frames)
        assert text_of(frames) == "one two three"
        assert [frame.type for frame in frames].count("message_accepted") == 1
        assert await history(services, session_id) == [("user", "Hi"), ("assistant", "one two three")]


async def test_a_reply_goes_on_when_the_database_comes_back(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    model.script(Text("before "), Wait(gate), Text("during "), Text("after"))
    async with proxied(database_url) as (url, proxy), open_replica(url, model) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
            await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
            frames = await read_until(attachment, "text_delta")
            proxy.is_open = False
            proxy.cut()
            gate.set()
            request = await model.request()
            await request.closed  # the model has said all while nobody could store it
            proxy.is_open = True
            frames += await read_until(attachment, "post_response_complete")

        assert text_of(frames) == "before during after"
        assert_gapless(frames)
        assert await history(services, session_id) == [("user", "Hi"), ("assistant", "before during after")]


async def test_a_model_has_to_wait_while_the_database_is_away(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    pieces = [Text("x" * 10_000)] * 3_000  # far more than the sockets in between can hold
    model.script(Text("first"), Wait(gate), *pieces)
    settings: dict[str, Any] = {"journal": {"pending_bytes": 50_000}, "limits": {"reply_bytes": 100_000_000}}
    async with proxied(database_url) as (url, proxy), open_replica(url, model, **settings) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        async with services.chat.attach(LOCAL_OWNER, session_id) as attachment:
            await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
            frames = await read_until(attachment, "text_delta")
            proxy.is_open = False
            proxy.cut()
            gate.set()
            request = await model.request()
            assert await _comes_to_rest(lambda: request.sent) < len(pieces)
            await services.chat.interrupt(LOCAL_OWNER, session_id, None)
            proxy.is_open = True
            frames += await read_until(attachment, "assistant_end")
        assert_gapless(frames)
        assert (await history(services, session_id))[1] == ("assistant", text_of(frames))


async def _comes_to_rest(value) -> int:
    """The value once it has not changed for thirty turns of the loop with a real pause of the peer in each."""
    last, same = value(), 0
    async with asyncio.timeout(20):
        while same < 30:
            await asyncio.sleep(0.01)
            now = value()
            same = same + 1 if now == last else 0
            last = now
    return last
