"""A model server that costs next to nothing and writes into each delta when it was sent.

The model's name says what the answer is like: `50x250` is 250 deltas, 50 of them per second (`0x250`: all at once),
`silent` never answers. A delta is 16 characters: the microseconds of the machine's monotonic clock, and a blank.
GET /closed tells, by the text of the user's last message, when the client hung up in the middle of an answer.
"""

import asyncio
import json
import time
from typing import Any, cast

import orjson
import uvloop

STAMP_CHARACTERS = 16
SILENT = "silent"

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def paced(rate: float, deltas: int) -> str:
    """The model that answers `deltas` deltas, `rate` per second; 0 is all at once."""
    return f"{rate:g}x{deltas}"


def microseconds() -> int:
    """Now on the clock that every process of this machine shares."""
    return time.monotonic_ns() // 1000


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_BEFORE, _AFTER = _http_chunk(_event({"content": "#" * STAMP_CHARACTERS})).split(b"#" * STAMP_CHARACTERS)
_FIRST = _HEAD + _http_chunk(_event({"role": "assistant", "content": ""}))
_LAST = _http_chunk(_event({}, "stop")) + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection. It understands as much of HTTP/1.1 as the official client sends."""

    def __init__(self, closed: dict[str, int]) -> None:
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._answering: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        if self._answering is not None:
            self._closed[self._answering] = microseconds()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
        if not end or len(body) < length:
            return
        self._received = body[length:]
        if head.startswith(b"GET"):
            path = head.split(b" ", 2)[1]
            self._write_json(self._closed if path.endswith(b"/closed") else {"data": []})
        else:
            self._answer(orjson.loads(body))

    def _answer(self, request: dict[str, Any]) -> None:
        self._answering = request["messages"][-1]["content"]
        if request["model"] == SILENT:
            return
        rate, deltas = request["model"].split("x")
        self._write(_FIRST)
        if float(rate):
            self._begun = self._loop.time()
            self._next(0, int(deltas), 1 / float(rate))
        else:
            self._write(_stamped() * int(deltas))
            self._end()

    def _next(self, index: int, deltas: int, interval: float) -> None:
        if index == deltas:
            self._end()
            return
        self._write(_stamped())
        # From the beginning, so that late timers do not add up.
        due = self._begun + (index + 1) * interval
        self._timer = self._loop.call_at(due, self._next, index + 1, deltas, interval)

    def _end(self) -> None:
        self._answering = None
        self._write(_LAST)

    def _write_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._write(head.encode() + body)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


def _stamped() -> bytes:
    return b"%b%015d %b" % (_BEFORE, microseconds(), _AFTER)


async def _serve() -> None:
    closed: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(closed), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
