"""A fake of OpenAI's API, of Azure's paths to it, and of the servers that imitate it.

`python -m tests.fakes.openai_server --port 0 --rate 50 --deltas 100` runs it for benchmarks.
"""

import json
from typing import Any

from aiohttp import web

from tests.fakes.script import CallPart, Fault, Finish, Refusal, Status, Step, Text, Thinking, Tokens
from tests.fakes.server import Exchange, FakeServer, Recorded


class ChatExchange(Exchange):
    """Chat Completions as OpenAI streams them."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, request: Recorded) -> None:
        super().__init__(request)
        self._usage: Tokens | None = None
        self._seen: set[int] = set()

    def begin(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def say(self, step: Step) -> bytes:
        match step:
            case Text(text):
                return self._delta({"content": text})
            case Thinking(text):
                return self._delta({"reasoning_content": text})
            case Refusal(text):
                return self._delta({"refusal": text})
            case CallPart():
                return self._delta({"tool_calls": [self._call(step)]})
            case Tokens():
                self._usage = step
                return b""
            case _:
                raise TypeError(step)

    def fault(self, fault: Fault) -> bytes:
        return event({"error": {"message": fault.message, "type": "server_error", "code": fault.code}})

    def finish(self, finish: Finish) -> bytes:
        data = self._chunk({"index": 0, "delta": {}, "finish_reason": finish.reason})
        options = self.request.body.get("stream_options") or {}
        if self._usage and options.get("include_usage"):
            data += event({**_CHUNK, "model": self._model, "choices": [], "usage": _chat_usage(self._usage)})
        return data + b"data: [DONE]\n\n"

    def refuse(self, status: Status) -> Any:
        return refusal_body(status)

    @property
    def _model(self) -> str:
        return self.request.body.get("model", "")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._chunk({"index": 0, "delta": delta, "finish_reason": None})

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return event({**_CHUNK, "model": self._model, "choices": [choice], "usage": None})

    def _call(self, part: CallPart) -> dict[str, Any]:
        function: dict[str, Any] = {"arguments": part.arguments}
        call: dict[str, Any] = {"index": part.index, "function": function}
        if part.name:
            function["name"] = part.name
        if part.index not in self._seen:
            call |= {"type": "function"}
        if part.id:
            call["id"] = part.id
        self._seen.add(part.index)
        return call


class OpenAIFake(FakeServer):
    """An OpenAI server in this process.

    `url` is the base URL for a plain client, `root` the endpoint for an Azure client. `models` is what
    `/v1/models` lists; requests to unknown paths are 404.
    """

    models: list[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.models = [{"id": "fake-small", "object": "model", "context_length": 16_384}]

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.root}/v1"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self._chat),
            web.post("/openai/deployments/{deployment}/chat/completions", self._chat),
            web.get("/v1/models", self._models),
            web.get("/openai/models", self._models),
        ]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, ChatExchange)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self.look_up(request)
        return web.json_response({"object": "list", "data": self.models})


_CHUNK: dict[str, Any] = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1}


def event(data: dict[str, Any], name: str = "") -> bytes:
    """One server-sent event. Not ASCII only: real servers send UTF-8."""
    head = f"event: {name}\n" if name else ""
    # Lone surrogates cannot be UTF-8; a server can only send them escaped.
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        text = json.dumps(data, separators=(",", ":")).encode()
    return head.encode() + b"data: " + text + b"\n\n"


def refusal_body(status: Status) -> Any:
    """The body of an HTTP error."""
    error = {"message": status.message, "type": "invalid_request_error", "param": None, "code": status.code or None}
    return {"error": error}


def _chat_usage(usage: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "completion_tokens_details": {"reasoning_tokens": usage.thinking},
    }
