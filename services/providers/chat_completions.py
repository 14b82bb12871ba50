"""The Chat Completions protocol, as OpenAI defined it and as its many imitators speak it. Pure.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, assert_never, cast

from services.agent.types import (
    ChatMessage,
    FinishReason,
    ImagePart,
    ModelEvent,
    ModelMessage,
    ModelRequest,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.errors import ProviderBrokeOff, ProviderGarbled
from services.providers.faults import Complaints
from services.providers.loose import count, items, mapping, words
from services.providers.pictures import REFUSED, without_pictures
from services.providers.reply import NOTHING, Reply
from services.providers.text import clean_text
from services.providers.thoughts import Thought, Thoughts, newest_turn
from services.providers.tools import TOOLS_REFUSED

# Sent under their own names.
_PLAIN: Final = (
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
)
# Only servers of open models know these; OpenAI's own refuses fields that it does not know.
_OPEN_MODELS: Final = ("top_k", "repeat_penalty")
_MAPPED: Final = ("max_tokens", "response_format", "tool_choice", "provider_options")

_OPENAI_CONTROLS: Final = frozenset({*_PLAIN, *_MAPPED})
_COMPATIBLE_CONTROLS: Final = _OPENAI_CONTROLS | {*_OPEN_MODELS, "thinking"}


class ChatCompletions:
    """How requests are written and answers read; `own` where OpenAI's own models answer."""

    path: Final = "/chat/completions"
    niceties: Final[Mapping[str, re.Pattern[str]]] = {
        "usage": re.compile(r"stream_options|include_usage"),
        "pictures": REFUSED,
        "tools": TOOLS_REFUSED,
        "thoughts": re.compile(r"\breasoning(_content)?\b"),
    }

    def __init__(self, *, own: bool) -> None:
        self.controls = _OPENAI_CONTROLS if own else _COMPATIBLE_CONTROLS
        # OpenAI has renamed the field, and its reasoning models know only the new name; others mostly the old.
        self._max_tokens = "max_completion_tokens" if own else "max_tokens"
        self._thoughts = Thoughts()

    def body(self, request: ModelRequest, without: Collection[str]) -> dict[str, Any]:
        """The JSON of the request, without the niceties that the server has refused."""
        controls = request.controls
        messages = without_pictures(request.messages) if "pictures" in without else request.messages
        body: dict[str, Any] = {"model": request.model, "messages": self._messages(messages, without)}
        body["stream"] = True
        if "usage" not in without:
            body["stream_options"] = {"include_usage": True}
        body.update({name: controls[name] for name in (*_PLAIN, *_OPEN_MODELS) if name in controls})
        if "max_tokens" in controls:
            body[self._max_tokens] = controls["max_tokens"]
        if "response_format" in controls:
            body["response_format"] = _response_format(controls["response_format"])
        if "thinking" in controls:
            # What vLLM, SGLang and llama.cpp hand to the model's template.
            body["chat_template_kwargs"] = {"enable_thinking": bool(controls["thinking"])}
        if request.tools and "tools" not in without:
            body["tools"] = [_tool(tool) for tool in request.tools]
            if "tool_choice" in controls:
                body["tool_choice"] = _tool_choice(controls["tool_choice"])
        else:
            body.pop("parallel_tool_calls", None)
        body.update(controls.get("provider_options", {}))
        return body

    def reader(self, complaints: Complaints) -> "ChatCompletionsReader":
        """A reader for one answer. The client itself raises the protocol's complaints."""
        return ChatCompletionsReader(self._thoughts)

    def _messages(self, messages: Sequence[ModelMessage], without: Collection[str]) -> list[dict[str, Any]]:
        """The messages; calls of the turn under way with what was thought before them, where the server told that."""
        written = [_message(message) for message in messages]
        for at in range(newest_turn(messages), len(messages)) if "thoughts" not in without else ():
            message = messages[at]
            if isinstance(message, ToolCallMessage) and (thought := self._thoughts.before(message.calls)):
                written[at][thought.field] = thought.text
        return written


class ChatCompletionsReader:
    """Reads the chunks of one answer."""

    __slots__ = ("_field", "_thought", "_thoughts", "reply")

    def __init__(self, thoughts: Thoughts) -> None:
        self.reply = Reply()
        self._thoughts = thoughts
        self._thought: list[str] = []
        self._field = ""

    def ended(self, calls: Sequence[ToolCall]) -> None:
        """Remember what the model thought before these calls."""
        if calls and self._thought:
            thought = Thought(self._field, clean_text("".join(self._thought)))
            self._thoughts.remember([call.id for call in calls], thought)

    def feed(self, chunk: object) -> Sequence[ModelEvent]:
        """The events in `chunk`."""
        if not isinstance(chunk, dict):
            raise ProviderGarbled()
        data = cast(dict[str, Any], chunk)
        if data.get("usage"):
            self.reply.usage = _usage(mapping(data["usage"]))
        for item in items(data.get("choices")):
            choice = mapping(item)
            if choice.get("index"):
                continue
            events = self._delta(mapping(choice.get("delta")))
            if reason := choice.get("finish_reason"):
                self.reply.finish = _finish_reason(reason)
            return events
        return NOTHING

    def _delta(self, delta: Mapping[str, Any]) -> Sequence[ModelEvent]:
        content = delta.get("content")
        if content and isinstance(content, str) and len(delta) == 1:
            return self.reply.text(content)
        events: list[ModelEvent] = []
        # Servers that send both send the same text twice.
        for field in ("reasoning_content", "reasoning"):
            if thought := words(delta.get(field)):
                self._thought.append(thought)
                self._field = field
                events += self.reply.thinking(thought)
                break
        events += self._content(content)
        if refused := words(delta.get("refusal")):
            events += self.reply.refusal(refused)
        for fragment in items(delta.get("tool_calls")):
            self._fragment(mapping(fragment))
        return events

    def _content(self, content: object) -> Sequence[ModelEvent]:
        if isinstance(content, str):
            return self.reply.text(content) if content else NOTHING
        events: list[ModelEvent] = []
        for item in items(content):
            part = mapping(item)
            if part.get("type") == "thinking":
                thoughts = (words(mapping(thought).get("text")) for thought in items(part.get("thinking")))
                events += self.reply.thinking("".join(thoughts))
            elif text := words(part.get("text")):
                events += self.reply.text(text)
        return events

    def _fragment(self, fragment: Mapping[str, Any]) -> None:
        function = mapping(fragment.get("function"))
        self.reply.call(
            fragment.get("index"),
            id=words(fragment.get("id")),
            name=words(function.get("name")),
            arguments=function.get("arguments"),
        )


def _message(message: ModelMessage) -> dict[str, Any]:
    match message:
        case ChatMessage(role=role, content=content, images=images):
            return {"role": role, "content": [_text(content), *map(_picture, images)] if images else content}
        case ToolCallMessage(content=content, calls=calls):
            return {"role": "assistant", "content": content or None, "tool_calls": [_call(call) for call in calls]}
        case ToolResultMessage(call_id=id, content=content):
            return {"role": "tool", "tool_call_id": id, "content": content}
        case _:
            assert_never(message)


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def _picture(image: ImagePart) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.data_url}}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice["name"]}}


def _response_format(form: Mapping[str, Any]) -> dict[str, Any]:
    match form["type"]:
        case "json":
            return {"type": "json_object"}
        case "json_schema":
            return {"type": "json_schema", "json_schema": {key: form[key] for key in ("name", "strict", "schema")}}
        case _:
            return {"type": "text"}


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = mapping(usage.get("completion_tokens_details"))
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        count(details.get("reasoning_tokens")),
    )


def _finish_reason(reason: object) -> FinishReason:
    match reason:
        case "length" | "max_tokens" | "model_length":
            return "length"
        case "tool_calls" | "function_call" | "tool_use":
            return "tool_calls"
        case "content_filter" | "safety" | "refusal":
            return "refusal"
        case "error" | "abort" | "insufficient_system_resource":
            raise ProviderBrokeOff(f"The model server broke off its answer ({reason}).")
        case _:
            return "stop"
