"""Ollama's native `/api/chat`. Pure.

https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never, cast

from services.agent.types import (
    ChatMessage,
    FinishReason,
    ModelEvent,
    ModelMessage,
    ModelRequest,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.errors import InvalidControl, ProviderGarbled
from services.providers.faults import Complaints, complaint_in
from services.providers.loose import count, items, mapping, words
from services.providers.reply import NOTHING, Reply
from services.providers.text import clean_text
from services.providers.thoughts import Thought, Thoughts, newest_turn

# Ours on the left, Ollama's option on the right.
_OPTIONS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "num_predict",
    "stop": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
}
_EFFORTS: Final[Mapping[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}

CONTROLS: Final = frozenset(
    {*_OPTIONS, "num_ctx", "keep_alive", "thinking", "reasoning_effort", "response_format", "tool_choice"}
) | {"provider_options"}


def request_body(
    request: ModelRequest, *, num_ctx: int, connection: str, thoughts: Thoughts | None = None
) -> dict[str, Any]:
    """The JSON of the request; raises `InvalidControl` for a `tool_choice` that Ollama does not know."""
    controls = request.controls
    options = {theirs: controls[ours] for ours, theirs in _OPTIONS.items() if ours in controls}
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, thoughts or Thoughts()),
        "stream": True,
        # Rather an error that we can act on than a prompt whose beginning is silently left out.
        "truncate": False,
        "options": {**options, **controls.get("provider_options", {}), "num_ctx": num_ctx},
    }
    if "keep_alive" in controls:
        body["keep_alive"] = controls["keep_alive"]
    if "thinking" in controls:
        body["think"] = controls["thinking"]
    elif "reasoning_effort" in controls:
        body["think"] = _EFFORTS[controls["reasoning_effort"]]
    form = mapping(controls.get("response_format"))
    if form.get("type") in ("json", "json_schema"):
        body["format"] = form.get("schema", "json")
    if request.tools and _wants_tools(controls, connection):
        body["tools"] = [_tool(tool) for tool in request.tools]
    return body


class OllamaReader:
    """Reads the lines of one answer."""

    __slots__ = ("_call_count", "_complaints", "_thought", "_thoughts", "reply")

    def __init__(self, complaints: Complaints, thoughts: Thoughts) -> None:
        self._thoughts = thoughts
        self._thought: list[str] = []
        self.reply = Reply()
        self._complaints = complaints
        self._call_count = 0

    def ended(self, calls: Sequence[ToolCall]) -> None:
        """Remember what the model thought before these calls."""
        self._thoughts.remember([call.id for call in calls], Thought("thinking", clean_text("".join(self._thought))))

    def feed(self, line: object) -> Sequence[ModelEvent]:
        """The events in `line`."""
        if not isinstance(line, dict):
            raise ProviderGarbled()
        data = cast(dict[str, Any], line)
        if data.get("error"):
            raise self._complaints.fault(complaint_in(data))
        events = self._message(mapping(data.get("message")))
        if data.get("done"):
            self.reply.usage = Usage(count(data.get("prompt_eval_count")), count(data.get("eval_count")))
            self.reply.finish = _finish_reason(data.get("done_reason"))
        return events

    def _message(self, message: Mapping[str, Any]) -> Sequence[ModelEvent]:
        text, thought, calls = message.get("content"), message.get("thinking"), message.get("tool_calls")
        if not thought and not calls:
            return self.reply.text(text) if text and isinstance(text, str) else NOTHING
        events: list[ModelEvent] = []
        if words(thought):
            self._thought.append(words(thought))
            events += self.reply.thinking(words(thought))
        if words(text):
            events += self.reply.text(words(text))
        for item in items(calls):
            self._call(mapping(item))
        return events

    def _call(self, call: Mapping[str, Any]) -> None:
        """Ollama sends every call whole, and older servers number none of them."""
        function = mapping(call.get("function"))
        self._call_count += 1
        self.reply.call(
            self._call_count,
            id=words(call.get("id")),
            name=words(function.get("name")),
            arguments=function.get("arguments"),
        )


def _wants_tools(controls: Mapping[str, Any], connection: str) -> bool:
    match controls.get("tool_choice", "auto"):
        case "auto":
            return True
        case "none":
            return False
        case _:
            message = f"The connection {connection} cannot express tool_choice other than auto and none."
            raise InvalidControl(message, field="tool_choice", provider=connection)


def _messages(messages: Sequence[ModelMessage], thoughts: Thoughts) -> list[dict[str, Any]]:
    """The messages; calls of the turn under way with what was thought before them."""
    written = [_message(message) for message in messages]
    for at in range(newest_turn(messages), len(messages)):
        message = messages[at]
        if isinstance(message, ToolCallMessage) and (thought := thoughts.before(message.calls)):
            written[at][thought.field] = thought.text
    return written


def _message(message: ModelMessage) -> dict[str, Any]:
    match message:
        case ChatMessage(role=role, content=content, images=()):
            return {"role": role, "content": content}
        case ChatMessage(role=role, content=content, images=images):
            return {"role": role, "content": content, "images": [image.base64 for image in images]}
        case ToolCallMessage(content=content, calls=calls):
            return {"role": "assistant", "content": content, "tool_calls": [_call(call) for call in calls]}
        case ToolResultMessage(call_id=id, name=name, content=content):
            return {"role": "tool", "content": content, "tool_name": name, "tool_call_id": id}
        case _:
            assert_never(message)


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> Mapping[str, Any]:
    """Ollama takes objects only; a call with unreadable arguments was answered by an error that says so."""
    try:
        return mapping(json.loads(call.arguments))
    except ValueError:
        return {}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _finish_reason(reason: object) -> FinishReason:
    return "length" if reason == "length" else "stop"
