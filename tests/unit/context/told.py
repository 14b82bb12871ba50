"""Messages and items for tests, from one word each."""

from uuid import UUID

from db.ids import MessageId
from db.records import ContextItemRecord, ContextMessage, MessageRole
from services.agent.types import ChatMessage, ToolCall, ToolCallMessage, ToolResultMessage
from services.context.items import Group, Item, encode

ROLES: dict[str, MessageRole] = {"u": "user", "a": "assistant", "s": "system"}


def groups(*spoken: str, tokens: int = 10) -> list[Group]:
    """Groups of so many tokens each: `u` a user message, `a` a reply, `s` a note of the system."""
    return [
        Group(UUID(int=number), ROLES[word[0]], (Item(ChatMessage(ROLES[word[0]], word), tokens),))
        for number, word in enumerate(spoken)
    ]


def message(
    word: str,
    *items: Item,
    finish_reason: str | None = None,
    stopped_by: str | None = None,
    rest: int = 0,
) -> ContextMessage:
    """A message of 10 tokens whose role is its first letter; `rest` are the tokens of what no item tells."""
    stored = tuple(encode(item) for item in items)
    known = sum(item.tokens for item in items) + rest if items else None
    return ContextMessage(
        MessageId(UUID(int=len(word))), ROLES[word[:1] or "a"], word, 10, known, finish_reason, stopped_by, stored
    )


def asked(text: str, *ids: str, tokens: int = 20) -> Item:
    """The model calls a tool for each id."""
    return Item(ToolCallMessage(text, tuple(ToolCall(id, "look", "{}") for id in ids)), tokens)


def result(id: str, text: str = "found", tokens: int = 30) -> Item:
    """What the tool answered."""
    return Item(ToolResultMessage(id, "look", text), tokens)


def stored(**body: object) -> ContextItemRecord:
    """An item as a row has it."""
    return ContextItemRecord(dict(body), 5)
