"""Clients of one socket each, cheap enough that a hundred of them do not disturb what they measure.

A client of the `websockets` library costs some 30 microseconds per frame: beside a server on two cores that would be
the larger half of the load. This one reads frames itself and looks into deltas only for the upstream's time stamps.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import orjson

from benchmarks.processes import BenchmarkFailed
from benchmarks.servers import Server
from benchmarks.upstream import STAMP_CHARACTERS, microseconds

PATIENCE = 60.0
"""Seconds that anything may take before the benchmark is given up."""

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_DELTA = b'{"type":"text_delta"'
_DELTA_TEXT = b'"delta":"'
_CONNECTED_AT_ONCE = 20
_NO_MASK = bytes(4)  # frames of a client are masked; with zeros, which changes nothing


@dataclass(slots=True)
class Tally:
    """What all sockets of one load have received; `latencies` are microseconds from the upstream, one per delta."""

    latencies: list[int]
    frames: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One message and its reply, in microseconds on the machine's clock."""

    sent: int
    first_delta: int | None
    ended: int


class Chat(asyncio.Protocol):
    """One socket on one session."""

    def __init__(self, host: str, path: str, tally: Tally) -> None:
        self._tally = tally
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._is_open = False
        self._expected: dict[str, asyncio.Future[int]] = {}
        self._closed = asyncio.get_running_loop().create_future()
        self.first_delta: int | None = None
        self.ready = self.expect("session_start")

    # --- talking ------------------------------------------------------------------------------------------------

    def say(self, model: str, content: str = "Hello") -> int:
        """Send a message; when that was."""
        self.first_delta = None
        return self._send({"type": "message", "content": content, "model": model})

    def interrupt(self) -> int:
        """Stop the running reply; when that was."""
        return self._send({"type": "interrupt"})

    def expect(self, kind: str) -> asyncio.Future[int]:
        """When the next event of that type came. Ask before doing what causes it; `soon` bounds the wait."""
        self._expected[kind] = asyncio.get_running_loop().create_future()
        return self._expected[kind]

    async def turn(self, model: str, content: str = "Hello") -> Turn:
        """Say something and wait until the reply is over and stored."""
        end = self.expect("assistant_end")
        sent = self.say(model, content)
        return Turn(sent, ended=await soon(end), first_delta=self.first_delta)

    async def close(self) -> None:
        """Close, politely: what a server does about sockets that break is not measured here."""
        self._expected.clear()
        if self._transport is not None:
            self._write(_CLOSE, (1000).to_bytes(2))
        await asyncio.wait([self._closed], timeout=5)

    # --- frames -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)
        self._fail("the server closed the socket")

    def data_received(self, data: bytes) -> None:
        now = microseconds()
        self._buffer += data
        if not self._is_open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                self._fail(f"the server refused the socket: {head[:200]!r}")
                return
            self._is_open, self._buffer = True, rest
        self._take_frames(now)

    def _take_frames(self, now: int) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            if len(buffer) < start + length:
                break
            self._take(buffer[at] & 0xF, buffer[start : start + length], now)
            at = start + length
        self._buffer = buffer[at:]

    def _take(self, opcode: int, payload: bytes, now: int) -> None:
        if opcode == _TEXT:
            if payload.startswith(_DELTA):
                self._take_deltas(payload, now)
            else:
                self._take_event(orjson.loads(payload), now)
        elif opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _CLOSE and self._transport is not None:
            self._transport.close()

    def _take_deltas(self, payload: bytes, now: int) -> None:
        if self.first_delta is None:
            self.first_delta = now
        self._tally.frames += 1
        # The service joins deltas that wait for the same commit, and cuts what it joined only between two of them.
        start = payload.rindex(_DELTA_TEXT) + len(_DELTA_TEXT)
        for at in range(start, len(payload) - STAMP_CHARACTERS, STAMP_CHARACTERS):
            self._tally.latencies.append(now - int(payload[at : at + STAMP_CHARACTERS]))

    def _take_event(self, event: dict[str, Any], now: int) -> None:
        if event["type"] == "error":
            self._fail(str(event))
        expected = self._expected.pop(event["type"], None)
        if expected is not None and not expected.done():
            expected.set_result(now)

    def _fail(self, why: str) -> None:
        for expected in self._expected.values():
            if not expected.done():
                expected.set_exception(BenchmarkFailed(why))
        self._expected.clear()

    def _send(self, frame: dict[str, str]) -> int:
        now = microseconds()
        self._write(_TEXT, orjson.dumps(frame))
        return now

    def _write(self, opcode: int, payload: bytes) -> None:
        if self._transport is None:
            raise BenchmarkFailed("the server closed the socket")
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2)
        self._transport.write(bytes([0x80 | opcode]) + length + _NO_MASK + payload)


async def soon(event: asyncio.Future[int]) -> int:
    """When the event came. Raises BenchmarkFailed if it does not come at all."""
    try:
        return await asyncio.wait_for(event, PATIENCE)
    except TimeoutError:
        raise BenchmarkFailed(f"an event did not come within {PATIENCE:g} s") from None


@asynccontextmanager
async def chats(server: Server, count: int, tally: Tally | None = None) -> AsyncGenerator[list[Chat], None]:
    """So many sockets, each on a new session; all closed at the end."""
    tally = tally or Tally([])
    turn = asyncio.Semaphore(_CONNECTED_AT_ONCE)
    host = f"127.0.0.1:{server.port}"
    opened: list[Chat] = []

    async def connect(session: str) -> None:
        async with turn:
            _, chat = await asyncio.get_running_loop().create_connection(
                lambda: Chat(host, f"/ws/chat/{session}", tally), "127.0.0.1", server.port
            )
            opened.append(chat)
            await soon(chat.ready)

    try:
        await asyncio.gather(*(connect(session) for session in await server.new_sessions(count)))
        yield opened
    finally:
        await asyncio.gather(*(chat.close() for chat in opened))


async def chat_on(server: Server, session: str) -> Chat:
    """A socket on a session that exists; the caller closes it."""
    host = f"127.0.0.1:{server.port}"
    _, chat = await asyncio.get_running_loop().create_connection(
        lambda: Chat(host, f"/ws/chat/{session}", Tally([])), "127.0.0.1", server.port
    )
    await soon(chat.ready)
    return chat
