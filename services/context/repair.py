"""Makes any sequence of messages one that every provider takes. Pure; doing it again changes nothing.

It is the last line of defence: whoever writes layer 1 writes it legally. What this mends was left by a crash, by an
import, or by another version of the service.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import assert_never

import orjson

from services.agent.types import ChatMessage, ModelMessage, ToolCall, ToolCallMessage, ToolResultMessage

UNKNOWN_OUTCOME = "[The call was interrupted, and what came of it is unknown.]"
NO_ANSWER = "[The tool answered nothing.]"
NOTE_FRAME = "[A note that the user did not write: {}]"
"""Some servers take no system message but the first, so a note says what it is in a message that all of them take."""


@dataclass(slots=True)
class _Exchange:
    """A message with calls, and the results that were found for them."""

    message: ToolCallMessage
    results: dict[str, ToolResultMessage] = field(default_factory=dict[str, ToolResultMessage])

    def whole(self) -> list[ModelMessage]:
        """The calls, and right after them a result for each, in the order of the calls."""
        return [self.message, *(self.results.get(call.id) or _unanswered(call) for call in self.message.calls)]


def repaired(messages: Iterable[ModelMessage]) -> list[ModelMessage]:
    """The messages as far as they can stand.

    No call is without a result and no result without its call; results come right after their call, in its order;
    nothing is empty; there is no system message. A message that needs no mending is the same object.
    """
    kept: list[ModelMessage | _Exchange] = []
    open_calls: dict[str, _Exchange] = {}
    for message in messages:
        match message:
            case ChatMessage():
                kept.extend(_said(message))
            case ToolCallMessage():
                kept.extend(_asked(message, open_calls))
            case ToolResultMessage():
                exchange = open_calls.pop(message.call_id, None)
                if exchange is not None:
                    exchange.results[message.call_id] = _answered(message)
            case _:
                assert_never(message)
    return [message for one in kept for message in (one.whole() if isinstance(one, _Exchange) else [one])]


def _said(message: ChatMessage) -> Sequence[ModelMessage]:
    if not message.content.strip():
        return ()
    if message.role == "system":
        return (replace(message, role="user", content=NOTE_FRAME.format(message.content)),)
    return (message,)


def _asked(message: ToolCallMessage, open_calls: dict[str, _Exchange]) -> Sequence[ModelMessage | _Exchange]:
    """The message with those of its calls that can be told apart, which are open from here on."""
    calls: dict[str, ToolCall] = {}
    for call in message.calls:
        if call.id:
            calls.setdefault(call.id, _readable(call))
    if not calls:
        return _said(ChatMessage("assistant", message.content))
    if any(call is not known for call, known in zip_longest(message.calls, calls.values())):
        message = replace(message, calls=tuple(calls.values()))
    exchange = _Exchange(message)
    open_calls.update(dict.fromkeys(calls, exchange))
    return (exchange,)


def _readable(call: ToolCall) -> ToolCall:
    """The call with arguments that are a JSON object, as some servers insist on reading what a model once wrote."""
    try:
        is_object = isinstance(orjson.loads(call.arguments), dict)
    except orjson.JSONDecodeError:
        is_object = False
    return call if is_object else replace(call, arguments=orjson.dumps({"invalid": call.arguments}).decode())


def _answered(result: ToolResultMessage) -> ToolResultMessage:
    return result if result.content.strip() else replace(result, content=NO_ANSWER)


def _unanswered(call: ToolCall) -> ToolResultMessage:
    return ToolResultMessage(call.id, call.name, UNKNOWN_OUTCOME)
