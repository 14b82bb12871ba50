"""A model server for benchmarks: every answer is the same prebuilt bytes, so that it costs next to nothing."""

import argparse
import asyncio
import json
from typing import Any, cast

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Answers:
    """The bytes of every answer, each piece one HTTP chunk."""

    def __init__(self, deltas: int) -> None:
        self.chat = _Answer(
            first=_event(_chunk({"role": "assistant", "content": ""})),
            deltas=[_event(_chunk({"content": f"word{number % 10} "})) for number in range(deltas)],
            last=_event(_chunk({}, "stop"))
            + _event({**_chunk({}), "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": deltas}})
            + b"data: [DONE]\n\n",
        )
        self.responses = _Answer(
            first=_event({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}),
            deltas=[
                _event({"type": "response.output_text.delta", "item_id": "m", "delta": f"word{number % 10} "})
                for number in range(deltas)
            ],
            last=_event(
                {
                    "type": "response.completed",
                    "response": {"status": "completed", "usage": {"input_tokens": 10, "output_tokens": deltas}},
                }
            ),
        )
        self.ollama = _Answer(
            first=b"",
            deltas=[
                _line({"message": {"role": "assistant", "content": f"word{n % 10} "}, "done": False})
                for n in range(deltas)
            ],
            last=_line(
                {
                    "message": {"role": "assistant", "content": ""},
                    "done": True,
                    "done_reason": "stop",
                    "prompt_eval_count": 10,
                    "eval_count": deltas,
                }
            ),
        )

    def for_path(self, path: bytes) -> "_Answer":
        """The answer in the protocol of `path`."""
        if path.endswith(b"/responses"):
            return self.responses
        return self.ollama if path.endswith(b"/api/chat") else self.chat


class _Answer:
    def __init__(self, *, first: bytes, deltas: list[bytes], last: bytes) -> None:
        self.first = _HEAD + (_http_chunk(first) if first else b"")
        self.deltas = [_http_chunk(delta) for delta in deltas]
        self.last = _http_chunk(last) + b"0\r\n\r\n"


class Firehose(asyncio.Protocol):
    """One connection. It understands as much of HTTP/1.1 as the official clients send."""

    def __init__(self, answers: Answers, interval: float) -> None:
        self._answers = answers
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
        if len(body) < length:
            return
        self._received = body[length:]
        self._answer(*head.split(b" ", 2)[:2])

    def _answer(self, method: bytes, target: bytes) -> None:
        assert self._transport
        if method == b"GET":
            models = json.dumps({"version": "0.0.0", "data": [{"id": "fake-small", "context_length": 16384}]}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(models)}\r\n\r\n"
            self._transport.write(head.encode() + models)
            return
        answer = self._answers.for_path(target.partition(b"?")[0])
        self._transport.write(answer.first)
        if self._interval:
            self._begun = self._loop.time()
            self._next(answer, 0)
        else:
            self._transport.writelines([*answer.deltas, answer.last])

    def _next(self, answer: _Answer, index: int) -> None:
        assert self._transport
        if index == len(answer.deltas):
            self._transport.write(answer.last)
            return
        self._transport.write(answer.deltas[index])
        # From the beginning, so that late timers do not add up.
        due = self._begun + (index + 1) * self._interval
        self._timer = self._loop.call_at(due, self._next, answer, index + 1)


async def serve(*, port: int, rate: float, deltas: int) -> asyncio.Server:
    """Listen on 127.0.0.1; `rate` is deltas per second and stream, 0 as fast as possible."""
    answers = Answers(deltas)
    loop = asyncio.get_running_loop()
    interval = 1 / rate if rate else 0.0
    return await loop.create_server(lambda: Firehose(answers, interval), "127.0.0.1", port, backlog=4096)


def run_from_command_line() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A fake OpenAI and Ollama server for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="deltas per second and stream; 0: no pause")
    parser.add_argument("--deltas", type=int, default=100, help="deltas per answer")
    options = parser.parse_args()

    async def run() -> None:
        server = await serve(port=options.port, rate=options.rate, deltas=options.deltas)
        host, port = server.sockets[0].getsockname()[:2]
        print(f"http://{host}:{port}/v1", flush=True)  # noqa: T201 - whoever starts it reads the address here
        await server.serve_forever()

    try:
        import uvloop  # noqa: PLC0415 - faster where it is installed

        uvloop.run(run())
    except KeyboardInterrupt:
        return


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


if __name__ == "__main__":
    run_from_command_line()
