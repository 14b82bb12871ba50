"""How much one user may do at once, and what becomes of those who do more."""

import asyncio
import json

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text
from tests.integration.sockets.client import Socket, assert_gapless, text_of, types_of
from tests.integration.sockets.conftest import Opened

PER_MINUTE = 20
LIMITS = {"frames_per_minute": PER_MINUTE}


async def spend(socket: Socket) -> None:
    """Use up the minute's frames."""
    for _ in range(PER_MINUTE):
        await socket.send("ping")
    for _ in range(PER_MINUTE):
        assert (await socket.next())["type"] == "pong"


async def test_frames_over_the_limit_are_refused_with_the_time_to_wait(opened: Opened):
    async with opened(limits=LIMITS) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        await spend(socket)
        for frame in ({"type": "ping"}, {"type": "message", "content": "Hi"}):
            await socket.connection.send(json.dumps(frame))
            error = await socket.refused("too_many_requests")
            assert 0 < error["details"]["retry_after"] <= 60
            assert error["retryable"]
        assert await client.history(session_id) == []


async def test_whoever_wants_to_stop_can_stop_over_the_limit_too(model: OpenAIFake, opened: Opened):
    model.script(Text("Hel"), Hang())
    async with opened(limits=LIMITS) as client:
        socket = await client.open(await client.session())
        await socket.say("Hi")
        run_id = (await socket.expect("text_delta"))["run_id"]
        await spend_rest(socket)
        await socket.send("interrupt")
        assert types_of(await socket.rest_of(run_id)) == ["interrupted", "assistant_end"]


async def spend_rest(socket: Socket) -> None:
    for _ in range(PER_MINUTE):
        await socket.send("ping")
    await socket.refused("too_many_requests")


@pytest.mark.parametrize(
    "frame",
    ['{"type":"ping"}', "not json", '{"type":"nothing"}', '{"type":"interrupt"}', '{"type":"message"}', b"binary"],
)
async def test_a_flood_of_any_frames_is_cut_off(opened: Opened, frame: str | bytes):
    async with opened(limits=LIMITS) as client:
        socket = await client.open(await client.session())
        flood = asyncio.create_task(_flood(socket, frame))
        assert (await socket.closed())[0] == 4429
        await flood


@pytest.mark.parametrize(
    "frame", ['{"type":"ping"}', "not json", '{"type":"nothing"}', '{"type":"chat","data":{}}', b"binary"]
)
async def test_a_flood_on_the_other_socket_is_cut_off_too(opened: Opened, frame: str | bytes):
    async with opened(limits=LIMITS) as client:
        socket = await client.multiplexed()
        flood = asyncio.create_task(_flood(socket, frame))
        assert (await socket.closed())[0] == 4429
        await flood


async def test_a_flood_does_not_stop_the_run_that_it_meets(model: OpenAIFake, opened: Opened):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Hang())
    async with opened(limits=LIMITS) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        await socket.say("Hi")
        run_id = (await socket.expect("text_delta"))["run_id"]
        flood = asyncio.create_task(_flood(socket, '{"type":"ping"}'))
        assert (await socket.closed())[0] == 4429
        await flood
        go_on.set()
        assert (await client.open(session_id)).seen[0]["active_run"] == run_id


async def test_the_limit_counts_all_sockets_of_a_user(opened: Opened):
    async with opened(limits=LIMITS) as client:
        session_id = await client.session()
        first, second = await client.open(session_id), await client.multiplexed()
        await spend(first)
        await second.send("ping")
        assert (await second.expect("error"))["data"]["code"] == "too_many_requests"


async def test_coming_back_does_not_give_new_frames(opened: Opened):
    async with opened(limits=LIMITS) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        await spend(socket)
        await socket.connection.close()
        back = await client.open(session_id)
        await back.send("ping")
        await back.refused("too_many_requests")


async def test_connections_over_the_limit_are_refused_until_one_closes(opened: Opened):
    async with opened(limits={"connections_per_user": 2}) as client:
        session_id = await client.session()
        first, _ = await client.open(session_id), await client.multiplexed()
        for path in (f"/ws/chat/{session_id}", "/ws/chat"):
            assert (await (await client.knock(path)).closed())[0] == 4429
        await first.connection.close()
        await client.open(session_id)


async def test_refused_connections_do_not_count(opened: Opened):
    async with opened(limits={"connections_per_user": 1}) as client:
        session_id = await client.session()
        for path in ("/ws/chat/malformed", "/ws/chat/01a20047-0000-7000-8000-000000000000"):
            for _ in range(3):
                assert (await (await client.knock(path)).closed())[0] in (4400, 4404)
        await client.open(session_id)


async def test_a_reader_that_lets_too_much_gather_is_dropped_and_its_run_goes_on(model: OpenAIFake, opened: Opened):
    model.script(*[Text("x" * 20_000)] * 600)
    async with opened(limits={"reply_bytes": 20_000_000}) as client:
        session_id = await client.session()
        lazy = await client.connect(f"/ws/chat/{session_id}", max_queue=1)
        watcher = await client.open(session_id)
        await lazy.send('{"type":"message","content":"Talk"}')
        lazy.transport.pause_reading()
        events = await watcher.run()
        assert_gapless(events)
        assert len(text_of(events)) == 12_000_000
        lazy.transport.resume_reading()
        code, _ = await Socket(lazy, lambda _: None).closed()
        assert code in (4508, 1006)  # told where it could still be told


async def _flood(socket: Socket, frame: str | bytes) -> None:
    try:
        for _ in range(PER_MINUTE * 10):
            await socket.connection.send(frame)
    except Exception:  # noqa: BLE001 - it was cut off, which is what the reader of the socket looks at
        return
