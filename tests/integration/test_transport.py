"""Peers that do not read, do not stop and do not leave, against a real uvicorn on both event loops."""

import asyncio
import base64
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from websocket.transport import UNREAD_LIMIT, UNSENT_LIMIT, GuardedProtocol, guarded

STALL = 0.5
PATIENCE = 15.0
PING, PONG, TEXT, CONT, FIN = 0x9, 0xA, 0x1, 0x0, 0x80

Story = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run_story(story: Coroutine[Any, Any, None]) -> None:
        faults: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
            runner.run(asyncio.wait_for(story, PATIENCE * 2))
        assert not faults

    return run_story


# A client that never reads


def test_client_that_never_reads_is_dropped_and_its_handler_ends(run: Any):
    async def story():
        app = App(stream)
        async with served(app) as server, silent(server):
            await app.wait_for("ended")
            assert app.seen["code"] == 4508
            assert isinstance(app.seen["ended"], ClientDisconnected)
            assert STALL <= app.seen["waited"] < STALL * 4
            await until(lambda: not server.connections)

    run(story())


def test_unread_stream_costs_one_buffer_until_it_is_cut(run: Any):
    async def story():
        app = App(stream)
        async with served(app) as server, silent(server):
            await until(lambda: bool(server.connections))
            protocol = server.protocol
            most = await highest(protocol.transport.get_write_buffer_size, until=lambda: not server.connections)
            assert most <= UNSENT_LIMIT + PIECE + 100

    run(story())


def test_slow_but_steady_reader_is_kept(run: Any):
    async def story():
        app = App(stream)
        async with served(app) as server, silent(server) as client:
            await until(lambda: bool(server.connections) and not server.protocol.writable.is_set())
            now = asyncio.get_running_loop().time
            end = now() + STALL * 5
            while now() < end:
                assert await client.read(40_000)
                await asyncio.sleep(STALL / 5)  # the slowness is the point
            assert server.connections
            assert "code" not in app.seen

    run(story())


def test_large_message_may_take_longer_than_a_stall(run: Any):
    async def one_large_message(app: App, receive: Receive, send: Send):
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "x" * 2_000_000})
        await hear(app, receive)

    async def story():
        app = App(one_large_message)
        async with served(app) as server, silent(server) as client:
            count = 0
            while count < 2_000_010:
                count += len(await client.read(100_000))
                await asyncio.sleep(STALL / 5)  # the slowness is the point
            assert "code" not in app.seen

    run(story())


def test_interrupt_is_heard_while_a_slow_reader_is_streamed_to_at_full_speed(run: Any):
    async def story():
        app = App(stream)
        async with served(app) as server, silent(server) as client:
            await until(lambda: bool(server.connections) and not server.protocol.writable.is_set())
            await client.send(frame(TEXT, b"interrupt"))
            await app.wait_for("text")
            assert app.seen["text"] == "interrupt"
            assert not server.protocol.writable.is_set()

    run(story())


def test_other_clients_are_served_while_one_is_silent_and_one_floods(run: Any):
    async def story():
        async def by_path(scope: Any, receive: Any, send: Any):
            await (stream if scope["path"] == "/stream" else echo)(app, receive, send)

        app = App(by_path, scoped=True)
        async with (
            served(app) as server,
            silent(server, "/stream"),
            silent(server, "/echo") as flooder,
            connect(server.url + "/echo") as ws,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(flooder.flood(frame(PING, b"x" * 100)))
            while len(server.connections) > 1:
                await ws.send("still there?")
                assert await asyncio.wait_for(ws.recv(), 2) == "still there?"

    run(story())


# Peers that do not stop


@pytest.mark.parametrize(
    "flood",
    [
        lambda: frame(PING, b"x" * 100),
        lambda: frame(PONG, b""),
        lambda: frame(CONT, b"", fin=False),
        lambda: frame(PING, b"") * 50 + frame(TEXT, b"go on"),
    ],
    ids=["pings", "pongs", "empty fragments", "pings between messages"],
)
def test_flood_of_frames_that_say_nothing_is_cut_and_costs_little(run: Any, flood: Callable[[], bytes]):
    async def story():
        app = App(listen)
        async with served(app) as server, silent(server) as client:
            await until(lambda: bool(server.connections))
            await client.send(frame(TEXT, b"", fin=flood() != frame(CONT, b"", fin=False)))
            async with asyncio.TaskGroup() as group:
                group.create_task(client.flood(flood()))
                protocol = server.protocol
                most = await highest(protocol.transport.get_write_buffer_size, until=lambda: not server.connections)
            assert most <= UNSENT_LIMIT + 8 * UNREAD_LIMIT
            assert len(protocol.frames) <= 1
            assert app.seen["code"] == 1008

    run(story())


def test_flood_whose_pongs_are_read_is_cut_as_well_and_told_why(run: Any):
    async def story():
        async with served(App(listen)) as server, silent(server) as client:
            await client.send(frame(PING, b"") * 1_300)  # more than two minutes allow, should one end now
            pong = b"\x8a\x00"
            while (header := await client.read_exactly(2)) == pong:
                pass
            assert header[0] == 0x88
            assert await client.read_exactly(2) == (1008).to_bytes(2)

    run(story())


def test_lively_client_gets_every_pong(run: Any):
    async def story():
        async with served(App(echo)) as server, silent(server) as client:
            await client.send(frame(PING, b"x" * 100) * 500 + frame(TEXT, b"hello"))
            assert await client.read_exactly(102 * 500) == bytes([FIN | PONG, 100, *b"x" * 100]) * 500
            assert await client.read_exactly(7) == b"\x81\x05hello"

    run(story())


def test_allowance_of_idle_frames_comes_back_with_the_next_minute(run: Any):
    async def story():
        async with served(App(echo)) as server, silent(server) as client:
            await until(lambda: bool(server.connections))
            for _ in range(3):
                server.protocol.idle_minute -= 1
                await client.send(frame(PING, b"") * 500)
                assert await client.read_exactly(2 * 500) == b"\x8a\x00" * 500

    run(story())


def test_empty_fragments_take_no_memory_and_spoil_no_message(run: Any):
    async def story():
        async with served(App(echo)) as server, silent(server) as client:
            fragments = [frame(TEXT, b"a", fin=False), *[frame(CONT, b"", fin=False)] * 500, frame(CONT, b"b")]
            await client.send(b"".join(fragments[:-1]) + frame(PING, b""))
            assert await client.read_exactly(2) == b"\x8a\x00"
            assert len(server.protocol.frames) == 1
            await client.send(fragments[-1])
            assert await client.read_exactly(4) == b"\x81\x02ab"

    run(story())


# Peers that do not leave


def test_socket_is_freed_when_the_close_is_never_answered(run: Any):
    async def close(app: App, receive: Receive, send: Send):
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 1000})

    async def story():
        app = App(close)
        async with served(app) as server, silent(server) as client:
            assert await client.read_exactly(4) == b"\x88\x02\x03\xe8"
            await until(lambda: not server.connections)

    run(story())


def test_socket_is_freed_when_the_last_words_are_never_read(run: Any):
    async def story():
        async def fill(app: App, receive: Receive, send: Send):
            await accept(receive, send)
            while not server.protocol.transport.get_write_buffer_size():
                await send({"type": "websocket.send", "text": "x" * 4_000})
            app.seen["paused"] = not server.protocol.writable.is_set()

        app = App(fill)
        async with served(app) as server, silent(server):
            await app.wait_for("paused")
            assert app.seen["paused"] is False  # else the stall would do, and this test would prove nothing
            await until(lambda: not server.connections)

    run(story())


def test_socket_is_freed_when_pings_are_not_answered(run: Any):
    async def story():
        app = App(listen)
        async with served(app, ws_ping_interval=0.1, ws_ping_timeout=0.1) as server, silent(server):
            await app.wait_for("code")
            await until(lambda: not server.connections)

    run(story())


def test_server_with_a_client_that_never_reads_shuts_down(run: Any):
    async def story():
        async with served(App(stream), stall_seconds=1.0) as server, silent(server):
            await until(lambda: bool(server.connections) and not server.protocol.writable.is_set())
        assert not server.connections

    run(story())


# Peers that break the rules


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x81\xff" + struct.pack(">Q", 1_000_000) + bytes(4) + b"a" * 1_000_000, 4413),
        (b"\x81\xff" + struct.pack(">Q", 2**62) + bytes(4), 4413),
        (b"\x81\x82" + bytes(4) + b"\xff\xfe", 1007),
        (b"\x83\x80" + bytes(4), 1002),
        (b"\x81\x01a", 1002),
    ],
    ids=["too-big", "absurdly-big", "not-utf-8", "unknown-opcode", "unmasked"],
)
def test_peer_learns_why_it_is_cut_off_even_in_mid_sentence(run: Any, message: bytes, code: int):
    async def story():
        app = App(listen)
        async with served(app) as server:
            for _ in range(5):
                async with silent(server) as client:
                    await client.send(message + frame(PING, b"") + frame(TEXT, b"too late"))
                    header = await client.read_exactly(4)
                    if header.startswith(b"\x8a\x00"):  # the pong may come first
                        header = header[2:] + await client.read_exactly(2)
                    assert (header[0], int.from_bytes(header[2:])) == (0x88, code)
                    while await client.read(4_096):
                        pass
                await until(lambda: not server.connections)
                assert (app.seen["code"], app.seen.get("text")) == (code, None)

    run(story())


def test_message_at_the_limit_is_accepted(run: Any):
    async def story():
        async with served(App(echo)) as server, connect(server.url) as ws:
            await ws.send("a" * 65_536)
            assert len(await ws.recv()) == 65_536
            await ws.send("a" * 65_537)
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4413

    run(story())


# Everybody else


def test_ordinary_conversation_is_untouched(run: Any):
    async def story():
        app = App(echo)
        async with served(app) as server, connect(server.url) as ws:
            for words in ("hello", "", "é🙂", "x" * 60_000):
                await ws.send(words)
                assert await ws.recv() == words
            await ws.send(["in ", "three ", "parts"])
            assert await ws.recv() == "in three parts"
            await (await ws.ping())
            await ws.close(3000, "enough")
            await app.wait_for("code")
            assert app.seen["code"] == 3000
            await until(lambda: not server.connections)

    run(story())


def test_close_of_the_application_reaches_the_client_after_all_that_was_sent(run: Any):
    async def last_words(app: App, receive: Receive, send: Send):
        await accept(receive, send)
        for number in range(2_000):
            await send({"type": "websocket.send", "text": f"{number} " + "x" * 1_000})
        await send({"type": "websocket.close", "code": 4401, "reason": "so long"})

    async def story():
        async with served(App(last_words)) as server, connect(server.url) as ws:
            words = [message async for message in until_closed(ws)]
            assert [int(str(word).split(" ")[0]) for word in words] == list(range(2_000))
            assert (ws.close_code, ws.close_reason) == (4401, "so long")
            await until(lambda: not server.connections)

    run(story())


# The applications: plain ASGI, so that nothing stands between the test and the protocol

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
PIECE = 16_000


@dataclass
class App:
    """An ASGI application that remembers what happened to its connections."""

    talk: Callable[..., Coroutine[Any, Any, None]]
    scoped: bool = False
    seen: dict[str, Any] = field(default_factory=dict[str, Any])

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await (self.talk(scope, receive, send) if self.scoped else self.talk(self, receive, send))

    async def wait_for(self, name: str) -> None:
        await until(lambda: name in self.seen)


async def accept(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})


async def listen(app: App, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await hear(app, receive)


async def hear(app: App, receive: Receive) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        app.seen["text"] = message.get("text")
    app.seen["code"] = message["code"]


async def echo(app: App, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    app.seen["code"] = message["code"]


async def stream(app: App, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    now = asyncio.get_running_loop().time
    started = now()
    async with asyncio.TaskGroup() as group:
        group.create_task(hear(app, receive))
        try:
            while True:
                started = now()
                await send({"type": "websocket.send", "text": "x" * PIECE})
                await asyncio.sleep(0)
        except OSError as ended:
            app.seen.update(ended=ended, waited=now() - started)


# The server and its clients


@dataclass
class Served:
    server: uvicorn.Server
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def connections(self) -> list[GuardedProtocol]:
        return [c for c in self.server.server_state.connections if isinstance(c, GuardedProtocol)]

    @property
    def protocol(self) -> GuardedProtocol:
        (protocol,) = self.connections
        return protocol


@contextlib.asynccontextmanager
async def served(app: App, *, stall_seconds: float = STALL, **config: Any) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = {"ws_max_size": 65_536, "ws_per_message_deflate": False, "lifespan": "off", "log_config": None} | config
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = uvicorn.Server(uvicorn.Config(app, ws=guarded(stall_seconds), **config))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield Served(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, PATIENCE)
        listener.close()


@dataclass
class Silent:
    """A client that reads only when it is told to, with a small buffer so that silence is noticed early."""

    connection: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def flood(self, data: bytes) -> None:
        """Send until the server hangs up."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.send(data * 100)

    async def read(self, limit: int) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.connection, limit), PATIENCE)

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self.read(count - len(data))
            assert piece, "the server hung up"
            data += piece
        return bytes(data)


@contextlib.asynccontextmanager
async def silent(server: Served, path: str = "/") -> AsyncIterator[Silent]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", server.port))
        client = Silent(connection)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "", ""]
        await client.send("\r\n".join(lines).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await client.read_exactly(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        yield client


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    assert len(data) < 126
    return bytes([opcode | (FIN if fin else 0), 0x80 | len(data)]) + bytes(4) + data


async def until_closed(ws: Any) -> AsyncIterator[str | bytes]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await ws.recv()


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail if it takes longer than anyone should wait."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def highest(measure: Callable[[], int], *, until: Callable[[], bool]) -> int:
    """The highest value seen before the condition holds."""
    most = 0
    async with asyncio.timeout(PATIENCE):
        while not until():
            most = max(most, measure())
            await asyncio.sleep(0)
    return most
