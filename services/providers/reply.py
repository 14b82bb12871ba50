"""One answer being put together: pieces in any shape go in, clean `ModelEvent`s come out."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from services.agent.types import (
    Finish,
    FinishReason,
    ModelEvent,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    Usage,
)
from services.errors import ProviderBrokeOff
from services.providers.text import TextCleaner, clean_text
from services.providers.thinking import ThinkSplitter

NOTHING: Sequence[ModelEvent] = ()


class Reply:
    """Collects one answer of a model; `end()` closes it and insists on a finish."""

    __slots__ = (
        "_calls",
        "_refusal",
        "_refused",
        "_splitter",
        "_text",
        "_thinking",
        "_thought",
        "_untouched",
        "finish",
        "usage",
    )

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        """Set by the reader of the protocol once the server has said that the turn is over."""
        self.usage: Usage | None = None
        self._text, self._thinking, self._refusal = TextCleaner(), TextCleaner(), TextCleaner()
        self._splitter = ThinkSplitter()
        self._calls = _Calls()
        self._untouched = False
        self._thought = False
        self._refused = False

    def text(self, piece: str) -> Sequence[ModelEvent]:
        """A piece of the reply, which may still carry `<think>` tags."""
        if self._untouched and piece and piece.isascii() and "\0" not in piece:
            return (TextDelta(piece),)
        cleaned = self._text.feed(piece)
        events = self._split(self._splitter.feed(cleaned))
        # Once past the tags, plain pieces with nothing held back before them need no further look.
        self._untouched = self._splitter.settled and cleaned == piece
        return events

    def thinking(self, piece: str) -> Sequence[ModelEvent]:
        """A piece of reasoning that the server sent as such."""
        cleaned = self._thinking.feed(piece)
        if not cleaned:
            return NOTHING
        self._thought = True
        return (ThinkingDelta(cleaned),)

    def thinking_break(self) -> Sequence[ModelEvent]:
        """A new paragraph of reasoning begins."""
        return self.thinking("\n\n") if self._thought else NOTHING

    def refusal(self, piece: str) -> Sequence[ModelEvent]:
        """A piece of the model's refusal."""
        cleaned = self._refusal.feed(piece)
        if not cleaned:
            return NOTHING
        self._refused = True
        return (RefusalDelta(cleaned),)

    def call(self, key: object, *, id: str = "", name: str = "", arguments: object = "") -> None:
        """A fragment of the tool call `key`; fragments of several calls may come in any order."""
        self._calls.add(key, id, name, arguments)

    def replace_call(self, key: object, *, id: str = "", name: str = "", arguments: object = "") -> None:
        """The tool call `key`, whole: it replaces the fragments seen so far."""
        self._calls.replace(key, id, name, arguments)

    @property
    def calling(self) -> bool:
        """Whether a tool call has begun."""
        return bool(self._calls)

    def end(self, provider: str) -> list[ModelEvent]:
        """The last events, with `Finish` at the very end; `ProviderBrokeOff` if the server never said so."""
        if self.finish is None:
            raise ProviderBrokeOff(provider=provider)
        events = self._leftovers()
        calls = self._calls.whole(only_valid=self.finish == "length")
        events += calls
        if self.usage is not None:
            events.append(self.usage)
        events.append(Finish(self._reason(bool(calls))))
        return events

    def _reason(self, has_calls: bool) -> FinishReason:
        """Servers disagree on what they call a turn that ended in calls or in a refusal."""
        match self.finish:
            case "stop" | "tool_calls" | None:
                if has_calls:
                    return "tool_calls"
                return "refusal" if self._refused else "stop"
            case "length" | "refusal" as reason:
                return reason

    def _leftovers(self) -> list[ModelEvent]:
        events = [
            *self._split(self._splitter.feed(self._text.end())),
            *self._split(self._splitter.end()),
        ]
        if thinking := self._thinking.end():
            events.append(ThinkingDelta(thinking))
        if refusal := self._refusal.end():
            events.append(RefusalDelta(refusal))
        return events

    def _split(self, parts: tuple[str, str]) -> list[ModelEvent]:
        thinking, text = parts
        events: list[ModelEvent] = []
        if thinking:
            events.append(ThinkingDelta(thinking))
        if text:
            events.append(TextDelta(text))
        return events


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


class _Calls:
    """Tool calls under construction, in the order in which they were first seen."""

    __slots__ = ("_calls", "_count", "_last")

    def __init__(self) -> None:
        self._calls: dict[object, _Call] = {}
        self._last: object = None
        self._count = 0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, key: object, id: str, name: str, arguments: object) -> None:
        call = self._find(key, id)
        call.id = call.id or id
        # Some servers repeat the whole name with every fragment, others cut it like the arguments.
        if name != call.name:
            call.name += name
        call.arguments += _as_json_text(arguments)

    def replace(self, key: object, id: str, name: str, arguments: object) -> None:
        call = self._find(key, "")
        call.id, call.name = id or call.id, name or call.name
        call.arguments = _as_json_text(arguments) or call.arguments

    def whole(self, *, only_valid: bool) -> list[ToolCall]:
        """The calls; after a reply that was cut, only those that were cut nowhere."""
        calls = [
            ToolCall(clean_text(call.id) or f"call_{secrets.token_hex(8)}", clean_text(call.name), clean_text(text))
            for call in self._calls.values()
            if (text := call.arguments or "{}") and (call.name or call.arguments)
        ]
        return [call for call in calls if _is_json(call.arguments)] if only_valid else calls

    def _find(self, key: object, id: str) -> _Call:
        if key is None:
            key = self._key_without_index(id)
        call = self._calls.get(key)
        if call is not None and id and call.id and id != call.id:
            # Another call under the same index: some servers number every parallel call 0.
            self._calls[("earlier", self._count)] = self._calls.pop(key)
            call = None
        if call is None:
            call = self._calls[key] = _Call()
            self._count += 1
        self._last = key
        return call

    def _key_without_index(self, id: str) -> object:
        if not id:
            return self._last
        return next((key for key, call in self._calls.items() if call.id == id), ("id", id))


def _as_json_text(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
