"""Which of a session's items a model is given: the newest that fit, and never more than fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Role = Literal["user", "assistant", "system"]

INTERRUPTED_NOTE = "[The user stopped this reply here.]"
INTERRUPTED_NOTE_TOKENS = 12
"""What the note and the blank line before it add to a reply, with a little room for how the two join."""


class DoesNotFit(Exception):
    """What must be sent is larger than the model's context: shorten the message or the system prompt."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(f"{needed} tokens are needed, the model takes {limit}")
        self.needed = needed
        self.limit = limit


@dataclass(frozen=True, slots=True)
class ContextItem:
    """One message as layer 1 keeps it; `tokens` is all that it costs but the note on an interrupted reply."""

    role: Role
    content: str
    tokens: int
    message_id: UUID
    interrupted: bool = False

    @property
    def cost(self) -> int:
        """Tokens that the message takes in a window."""
        return self.tokens + (INTERRUPTED_NOTE_TOKENS if self.carries_note else 0)

    @property
    def carries_note(self) -> bool:
        return self.interrupted and self.role == "assistant"


@dataclass(frozen=True, slots=True)
class Window:
    """What one model call is given. Always `tokens + reserve <= limit`."""

    items: tuple[ContextItem, ...]
    tokens: int
    """The system prompt and the items."""
    limit: int
    reserve: int
    """Left for the reply: no more than this may be asked of the model."""
    left_out: int
    """How many of the oldest items did not fit."""


def fit(prompt_tokens: int, items: Sequence[ContextItem], *, limit: int, reserve: int, turn: int = 1) -> Window:
    """The longest run of newest items that fits with the system prompt and the reply.

    `items` come oldest first. The newest `turn` of them, and everything from the newest user message on, are always in
    the window. A window that leaves items out does not begin with a reply whose question it left out.

    The reply gets `reserve` tokens but never more than half of `limit`, or the reply would push out what it answers.
    If the newest messages need the room, the reserve shrinks, down to a quarter of `limit`.

    Raises:
        DoesNotFit: the system prompt, the newest messages and the smallest reserve exceed `limit`.
    """
    required = _first_required(items, turn)
    least = prompt_tokens + sum(item.cost for item in items[required:])
    smallest = min(reserve, limit // 4)
    if least + smallest > limit:
        raise DoesNotFit(needed=least + smallest, limit=limit)
    reserve = min(reserve, limit // 2, limit - least)

    start, tokens = required, least
    while start > 0 and tokens + items[start - 1].cost + reserve <= limit:
        start -= 1
        tokens += items[start].cost
    start = _first_legal(items, start, required)
    chosen = tuple(items[start:])
    tokens = prompt_tokens + sum(item.cost for item in chosen)
    return Window(chosen, tokens, limit, reserve, left_out=start)


def as_model_messages(window: Window) -> list[tuple[Role, str]]:
    """Role and content of every message; a reply that the user stopped says so at its end."""
    return [(item.role, _with_note(item) if item.carries_note else item.content) for item in window.items]


def _first_required(items: Sequence[ContextItem], turn: int) -> int:
    """Where the newest user message, or the turn if it began earlier, begins."""
    newest = len(items) - 1
    while newest >= 0 and items[newest].role != "user":
        newest -= 1
    begin = len(items) - turn
    return max(0, min(newest, begin) if newest >= 0 else begin)


def _first_legal(items: Sequence[ContextItem], start: int, required: int) -> int:
    """The first place from `start` on after which the first thing said is not a reply; notes of the system may lead."""
    if start == 0:
        return 0
    for position in range(start, required):
        match items[position].role:
            case "user":
                break
            case "assistant":
                start = position + 1
            case "system":
                pass
    return start


def _with_note(item: ContextItem) -> str:
    return f"{item.content}\n\n{INTERRUPTED_NOTE}" if item.content else INTERRUPTED_NOTE
