"""A fake of Ollama's native API."""

import json
from typing import Any

from aiohttp import web

from tests.fakes.script import CallPart, Fault, Finish, Refusal, Status, Step, Text, Thinking, Tokens
from tests.fakes.server import Exchange, FakeServer, Recorded


class OllamaExchange(Exchange):
    """One answer of `/api/chat`: a JSON object per line, calls whole, usage in the last line."""

    content_type = "application/x-ndjson"

    def __init__(self, request: Recorded) -> None:
        super().__init__(request)
        self._usage = Tokens(0, 0)
        self._calls: dict[int, dict[str, str]] = {}

    def say(self, step: Step) -> bytes:
        match step:
            case Text(text) | Refusal(text):
                return self._line({"role": "assistant", "content": text})
            case Thinking(text):
                return self._line({"role": "assistant", "content": "", "thinking": text})
            case CallPart():
                call = self._calls.setdefault(step.index, {"name": "", "arguments": ""})
                call["name"] += step.name
                call["arguments"] += step.arguments
                return b""
            case Tokens():
                self._usage = step
                return b""
            case _:
                raise TypeError(step)

    def fault(self, fault: Fault) -> bytes:
        return _json_line({"error": fault.message})

    def finish(self, finish: Finish) -> bytes:
        calls = [
            {"function": {"name": call["name"], "arguments": json.loads(call["arguments"] or "{}")}}
            for call in self._calls.values()
        ]
        lines = self._line({"role": "assistant", "content": "", "tool_calls": calls}) if calls else b""
        reason = finish.reason if finish.reason == "length" else "stop"
        last = {"done": True, "done_reason": reason, "total_duration": 1, "load_duration": 1}
        last |= {"prompt_eval_count": self._usage.input, "eval_count": self._usage.output}
        return lines + self._line({"role": "assistant", "content": ""}, **last)

    def refuse(self, status: Status) -> Any:
        return {"error": status.message}

    def _line(self, message: dict[str, Any], **more: Any) -> bytes:
        model = self.request.body.get("model", "")
        return _json_line({"model": model, "created_at": "1", "message": message, "done": False, **more})


class OllamaFake(FakeServer):
    """An Ollama server in this process. `lengths` are the installed models and what each was made for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lengths = {"fake-small": 32_768}
        self.capabilities = ["completion", "tools"]

    @property
    def url(self) -> str:
        """The host, as `OLLAMA_HOST` takes it."""
        return self.root

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/chat", self._chat),
            web.post("/api/show", self._show),
            web.get("/api/tags", self._tags),
            web.get("/api/version", self._version),
        ]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, OllamaExchange)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        model = (await self.look_up(request)).body["model"]
        if model not in self.lengths:
            return web.json_response({"error": f"model '{model}' not found"}, status=404)
        info = {"general.architecture": "fake", "fake.context_length": self.lengths[model]}
        return web.json_response({"model_info": info, "capabilities": self.capabilities})

    async def _tags(self, request: web.Request) -> web.StreamResponse:
        await self.look_up(request)
        return web.json_response({"models": [{"name": id, "model": id, "size": 1} for id in self.lengths]})

    async def _version(self, request: web.Request) -> web.StreamResponse:
        await self.look_up(request)
        return web.json_response({"version": "0.0.0"})


def _json_line(data: dict[str, Any]) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(data).encode() + b"\n"
