"""What the model is told of each message, as layer 1 keeps it. Pure.

A message without items of its own stands for itself. Items exist where the model's view differs: a reply that called
tools is its calls and their results, and then the rest of its text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never
from uuid import UUID

from db.records import ContextItemRecord, ContextMessage, MessageRole
from services.agent.types import ChatMessage, ModelMessage, ToolCall, ToolCallMessage, ToolResultMessage
from services.context.repair import NOTE_FRAME, repaired
from services.context.tokens import MESSAGE_OVERHEAD

INTERRUPTED_NOTE = "[The user stopped this reply here.]"
BROKEN_OFF_NOTE = "[This reply broke off here: the service was stopped.]"
FAILED_NOTE = "[This reply broke off here because of an error.]"
WORDLESS = "[The user sent files without a word.]"
NOTE_TOKENS = 16
"""What a note and the blank line before it add to a reply, with a little room for how the two join."""

CALL_OVERHEAD = 8
"""Tokens that a tool call costs beyond its name and arguments."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that the model is told, with all that it costs. `files` are only named here."""

    message: ModelMessage
    tokens: int
    files: tuple[Mapping[str, Any], ...] = ()
    stands_for: UUID | None = None
    """A message of the history that is told here, in the middle of a reply, and not in its own place."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the model is told of one message: it goes or stays whole, so that no call is ever parted from its result."""

    message_id: UUID
    role: MessageRole
    items: tuple[Item, ...]

    @property
    def tokens(self) -> int:
        """What all of it costs in a window."""
        return sum(item.tokens for item in self.items)


def groups_of(messages: Sequence[ContextMessage]) -> list[Group]:
    """What the model is told of these messages, legal for any provider. Those that say nothing are not there."""
    groups = [Group(message.id, message.role, _items_of(message)) for message in messages]
    told = {item.stands_for for group in groups for item in group.items}
    return [group for group in groups if group.items and group.message_id not in told]


def encode(item: Item) -> ContextItemRecord:
    """The item as it is stored."""
    body = _body(item.message)
    if item.files:
        body["files"] = [dict(file) for file in item.files]
    if item.stands_for:
        body["message_id"] = str(item.stands_for)
    return ContextItemRecord(body, item.tokens)


def decode(record: ContextItemRecord) -> Item:
    """The item that was stored. What an older or newer version of the service wrote does not raise."""
    body = record.body
    text = str(body.get("text") or "")
    files = tuple(body.get("files") or ())
    match body:
        case {"role": "tool"}:
            message = ToolResultMessage(str(body.get("call_id") or ""), str(body.get("name") or ""), text)
        case {"role": "assistant", "calls": calls} if calls:
            message = ToolCallMessage(
                text, tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in calls)
            )
        case {"role": "assistant" | "system" as role}:
            message = ChatMessage(role, text)
        case _:
            message = ChatMessage("user", text)
    return Item(message, record.token_count, files, _id_or_none(body.get("message_id")))


def texts_of(message: ModelMessage) -> tuple[str, ...]:
    """Everything in a message that costs tokens."""
    match message:
        case ChatMessage(content=text) | ToolResultMessage(content=text):
            return (text,)
        case ToolCallMessage(content=text, calls=calls):
            return (text, *(part for call in calls for part in (call.name, call.arguments)))
        case _:
            assert_never(message)


def overhead_of(message: ModelMessage) -> int:
    """What a message costs beyond its texts."""
    calls = len(message.calls) if isinstance(message, ToolCallMessage) else 0
    return MESSAGE_OVERHEAD + CALL_OVERHEAD * calls


def said_in(items: Sequence[Item]) -> int:
    """How many characters of a reply's text its items account for; what comes after them has none."""
    return sum(
        len(item.message.content) for item in items if isinstance(item.message, ToolCallMessage) or _is_said(item)
    )


def unanswered(items: Sequence[Item]) -> tuple[ToolCall, ...]:
    """The calls of the newest round in a reply that have no result yet."""
    asked: tuple[ToolCall, ...] = ()
    for item in items:
        match item.message:
            case ToolCallMessage(calls=calls):
                asked = calls
            case ToolResultMessage(call_id=id):
                asked = tuple(call for call in asked if call.id != id)
            case _:
                pass
    return asked


def mended(items: Sequence[Item]) -> list[Item]:
    """The items as far as they are legal. What is changed for that gets a count that is surely large enough."""
    known = {id(item.message): item for item in items}
    legal = repaired(item.message for item in items)
    return [known.get(id(message)) or Item(message, _at_most(message)) for message in legal]


def _id_or_none(text: object) -> UUID | None:
    try:
        return UUID(str(text)) if text else None
    except ValueError:
        return None


def _is_said(item: Item) -> bool:
    return isinstance(item.message, ChatMessage) and item.message.role == "assistant"


def _items_of(message: ContextMessage) -> tuple[Item, ...]:
    items = [decode(item) for item in message.items] or [_itself(message)]
    if message.role == "user" and any(item.files for item in items):
        items = [_with_files(message, items)]
    elif message.items and message.role == "assistant":
        items = _with_rest(items, message)
    if note := _note(message):
        items = _with_note(items, note)
    return tuple(mended(items))


def _itself(message: ContextMessage) -> Item:
    tokens = message.token_count + MESSAGE_OVERHEAD
    if message.role == "system" and message.content.strip():
        return Item(ChatMessage("user", NOTE_FRAME.format(message.content)), tokens + NOTE_TOKENS)
    return Item(ChatMessage(message.role, message.content), tokens)


def _with_files(message: ContextMessage, items: Sequence[Item]) -> Item:
    """The user's words as they are today, with the files that came with them."""
    known = message.context_tokens
    tokens = sum(item.tokens for item in items) if known is None else known
    files = tuple(file for item in items for file in item.files)
    return Item(ChatMessage("user", message.content if message.content.strip() else WORDLESS), tokens, files)


def _with_rest(items: list[Item], message: ContextMessage) -> list[Item]:
    """The items of a reply and what it said after them."""
    rest = message.content[said_in(items) :]
    if not rest.strip():
        return items
    known = message.context_tokens
    tokens = message.token_count if known is None else known - sum(item.tokens for item in items)
    return [*items, Item(ChatMessage("assistant", rest), max(tokens, 0) or message.token_count + MESSAGE_OVERHEAD)]


def _note(message: ContextMessage) -> str | None:
    if message.role != "assistant":
        return None
    match message.finish_reason, message.stopped_by:
        case "interrupted", ("recovery" | "shutdown"):
            return BROKEN_OFF_NOTE
        case "interrupted", _:
            return INTERRUPTED_NOTE
        case "error", _:
            return FAILED_NOTE
        case _:
            return None


def _with_note(items: list[Item], note: str) -> list[Item]:
    """The items with a note at their end, joined to the text that it is about."""
    last = items[-1]
    if isinstance(last.message, ChatMessage) and last.message.role == "assistant" and last.message.content:
        noted = ChatMessage("assistant", f"{last.message.content}\n\n{note}")
        return [*items[:-1], replace(last, message=noted, tokens=last.tokens + NOTE_TOKENS)]
    said = [item for item in items if any(texts_of(item.message))]
    return [*said, Item(ChatMessage("assistant", note), MESSAGE_OVERHEAD + NOTE_TOKENS)]


def _at_most(message: ModelMessage) -> int:
    """No text has more tokens than bytes."""
    return overhead_of(message) + sum(len(text.encode(errors="replace")) for text in texts_of(message))


def _body(message: ModelMessage) -> dict[str, Any]:
    match message:
        case ChatMessage(role=role, content=text):
            return {"role": role, "text": text}
        case ToolCallMessage(content=text, calls=calls):
            asked = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]
            return {"role": "assistant", "text": text, "calls": asked}
        case ToolResultMessage(call_id=id, name=name, content=text):
            return {"role": "tool", "call_id": id, "name": name, "text": text}
        case _:
            assert_never(message)
