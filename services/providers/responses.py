"""OpenAI's Responses protocol, which alone shows what reasoning models think. Pure.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, assert_never, cast

from services.agent.types import (
    ChatMessage,
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
from services.providers.faults import Complaint, Complaints, complaint_in
from services.providers.loose import count, mapping, words
from services.providers.pictures import REFUSED, without_pictures
from services.providers.reply import NOTHING, Reply
from services.providers.tools import TOOLS_REFUSED

_PLAIN: Final = ("temperature", "top_p", "parallel_tool_calls")
_MAPPED: Final = (
    "max_tokens",
    "reasoning_effort",
    "verbosity",
    "response_format",
    "tool_choice",
    "thinking",
    "provider_options",
)
# Others refuse to be asked for a summary of their reasoning.
_REASONS = re.compile(r"(^|/)(o\d|gpt-5(?!.*chat)|codex|gpt-oss)")
_MOST_REMEMBERED = 500


class Responses:
    """How requests are written and answers read.

    Nothing is stored at the server. What a reasoning model thought before it called tools, which the server hands
    out sealed, is remembered for a while and given back with the results; without it the model thinks anew.
    """

    path: Final = "/responses"
    controls: Final = frozenset({*_PLAIN, *_MAPPED})
    niceties: Final[Mapping[str, re.Pattern[str]]] = {
        "summary": re.compile(r"reasoning\.summary|reasoning summar", re.IGNORECASE),
        "sealed": re.compile(r"encrypted", re.IGNORECASE),
        "pictures": REFUSED,
        "tools": TOOLS_REFUSED,
    }

    def __init__(self) -> None:
        self._sealed: OrderedDict[str, tuple[Any, ...]] = OrderedDict()

    def body(self, request: ModelRequest, without: Collection[str]) -> dict[str, Any]:
        """The JSON of the request, without the niceties that the server has refused."""
        controls = request.controls
        messages = without_pictures(request.messages) if "pictures" in without else request.messages
        body: dict[str, Any] = {
            "model": request.model,
            "input": [item for message in messages for item in self._items(message)],
            "stream": True,
            "store": False,
        }
        body.update({name: controls[name] for name in _PLAIN if name in controls})
        if "max_tokens" in controls:
            body["max_output_tokens"] = controls["max_tokens"]
        body |= _reasoning(request, without)
        if text := _text(controls):
            body["text"] = text
        if request.tools and "tools" not in without:
            body["tools"] = [_tool(tool) for tool in request.tools]
            if "tool_choice" in controls:
                body["tool_choice"] = _tool_choice(controls["tool_choice"])
        else:
            body.pop("parallel_tool_calls", None)
        body.update(controls.get("provider_options", {}))
        return body

    def reader(self, complaints: Complaints) -> "ResponsesReader":
        """A reader for one answer."""
        return ResponsesReader(complaints, self._sealed)

    def _items(self, message: ModelMessage) -> Sequence[Any]:
        match message:
            case ChatMessage(role=role, content=content, images=images):
                parts = [{"type": "input_text", "text": content}, *map(_picture, images)] if images else content
                # Some servers do not guess the kind of an item from its fields, so it is always named.
                return ({"type": "message", "role": role, "content": parts},)
            case ToolCallMessage(content=content, calls=calls):
                said = ({"type": "message", "role": "assistant", "content": content},) if content else ()
                sealed = next((self._sealed[call.id] for call in calls if call.id in self._sealed), ())
                return (*sealed, *said, *map(_call, calls))
            case ToolResultMessage(call_id=id, content=content):
                return ({"type": "function_call_output", "call_id": id, "output": content},)
            case _:
                assert_never(message)


class ResponsesReader:
    """Reads the events of one answer."""

    __slots__ = ("_call_ids", "_complaints", "_sealed", "_sealed_by_call", "reply")

    def __init__(self, complaints: Complaints, sealed_by_call: "OrderedDict[str, tuple[Any, ...]]") -> None:
        self.reply = Reply()
        self._complaints = complaints
        self._sealed_by_call = sealed_by_call
        self._sealed: list[Any] = []
        self._call_ids: list[str] = []

    def ended(self, calls: Sequence[ToolCall]) -> None:
        """What is to be remembered has been: the server hands it out sealed, and by itself."""

    def feed(self, event: object) -> Sequence[ModelEvent]:
        """The events in `event`."""
        if not isinstance(event, dict):
            raise ProviderGarbled()
        data = cast(dict[str, Any], event)
        match data.get("type"):
            case "response.output_text.delta":
                return self.reply.text(words(data.get("delta")))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self.reply.thinking(words(data.get("delta")))
            case "response.reasoning_summary_part.added":
                return self.reply.thinking_break()
            case "response.refusal.delta":
                return self.reply.refusal(words(data.get("delta")))
            case "response.function_call_arguments.delta":
                self.reply.call(_key(data, data), arguments=data.get("delta"))
            case "response.output_item.added" | "response.output_item.done":
                self._item(data, mapping(data.get("item")))
            case _:
                self._end(data)
        return NOTHING

    def _item(self, event: Mapping[str, Any], item: Mapping[str, Any]) -> None:
        if item.get("type") == "function_call":
            known = {"id": words(item.get("call_id")), "name": words(item.get("name"))}
            self.reply.replace_call(_key(event, item), **known, arguments=item.get("arguments"))
            self._call_ids.append(known["id"])
        elif event["type"] == "response.output_item.done" and item.get("encrypted_content"):
            self._sealed.append(item)

    def _end(self, event: Mapping[str, Any]) -> None:
        response = mapping(event.get("response"))
        match event.get("type"):
            case "response.completed":
                self.reply.usage = _usage(mapping(response.get("usage")))
                self.reply.finish = "stop"
                self._remember()
            case "response.incomplete":
                self.reply.usage = _usage(mapping(response.get("usage")))
                reason = mapping(response.get("incomplete_details")).get("reason")
                self.reply.finish = "refusal" if reason == "content_filter" else "length"
            case "response.failed":
                raise self._complaints.fault(complaint_in(response))
            case "response.cancelled":
                raise ProviderBrokeOff()
            case "error":
                complaint = complaint_in(event)
                raise self._complaints.fault(complaint if complaint.message else Complaint("it gave no reason"))
            case _:
                pass

    def _remember(self) -> None:
        if not self._sealed:
            return
        for id in dict.fromkeys(self._call_ids):
            self._sealed_by_call[id] = tuple(self._sealed)
        while len(self._sealed_by_call) > _MOST_REMEMBERED:
            self._sealed_by_call.popitem(last=False)


def _key(event: Mapping[str, Any], item: Mapping[str, Any]) -> object:
    """What fragments of one call have in common; imitators leave out the one or the other."""
    index = event.get("output_index")
    return index if index is not None else words(item.get("item_id") or item.get("id") or item.get("call_id"))


def _reasoning(request: ModelRequest, without: Collection[str]) -> dict[str, Any]:
    controls = request.controls
    thinking = controls.get("thinking")
    effort = controls.get("reasoning_effort") or (thinking if isinstance(thinking, str) else None)
    reasoning: dict[str, Any] = {"effort": effort} if effort else {}
    reasons = bool(effort or thinking or _REASONS.search(request.model.lower()))
    if reasons and thinking is not False and "summary" not in without:
        reasoning["summary"] = "auto"
    fields: dict[str, Any] = {"reasoning": reasoning} if reasoning else {}
    if reasons and request.tools and "sealed" not in without:
        fields["include"] = ["reasoning.encrypted_content"]
    return fields


def _text(controls: Mapping[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = {}
    if "verbosity" in controls:
        text["verbosity"] = controls["verbosity"]
    match form := mapping(controls.get("response_format")):
        case {"type": "json"}:
            text["format"] = {"type": "json_object"}
        case {"type": "json_schema"}:
            text["format"] = dict(form)
        case _:
            pass
    return text


def _picture(image: ImagePart) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.data_url, "detail": "auto"}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    # Strict schemas must meet conditions that tools from elsewhere do not.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


def _tool_choice(choice: Any) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "name": choice["name"]}


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = mapping(usage.get("output_tokens_details"))
    return Usage(
        count(usage.get("input_tokens")), count(usage.get("output_tokens")), count(details.get("reasoning_tokens"))
    )
