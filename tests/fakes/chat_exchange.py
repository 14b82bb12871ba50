"""Chat Completions as the fake speaks it."""

from typing import Any

from tests.fakes.script import CallPart, Fault, Finish, Refusal, Status, Step, Text, Thinking, Tokens
from tests.fakes.server import Exchange, Recorded
from tests.fakes.sse import DONE, event, refusal_body

_CHUNK: dict[str, Any] = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1}


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
        return data + DONE

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


def _chat_usage(usage: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "completion_tokens_details": {"reasoning_tokens": usage.thinking},
    }
