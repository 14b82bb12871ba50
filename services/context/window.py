"""Which of a session's messages a model is given: the newest that fit, and never more than fit. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.agent.types import ModelMessage, ToolResultMessage
from services.context.items import Group, Item
from services.context.tokens import MESSAGE_OVERHEAD

SHORTENED = "[This result was left out to make room. read_tool_result gives it again: id {}]"
"""What a running reply is told instead of a tool's result for which there is no room any more."""
SHORTENED_TOKENS = 32
"""What that costs beyond the id of the call."""


class DoesNotFit(Exception):
    """What must be sent is larger than the model's context: shorten the message or the system prompt."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(f"{needed} tokens are needed, the model takes {limit}")
        self.needed = needed
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Window:
    """What one model call is given after the system prompt. Always `tokens + reserve <= limit`."""

    summary: Item | None
    groups: tuple[Group, ...]
    reply: tuple[Item, ...]
    """What was said in the reply that is running."""
    tokens: int
    """The prompt with whatever goes with it, and all of the above."""
    limit: int
    reserve: int
    """Left for the answer: no more than this may be asked of the model."""
    left_out: int
    """How many of the oldest groups did not fit."""

    @property
    def items(self) -> tuple[Item, ...]:
        """Everything in the order in which it is told."""
        history = [item for group in self.groups for item in group.items]
        return (*([self.summary] if self.summary else ()), *history, *self.reply)

    @property
    def messages(self) -> tuple[ModelMessage, ...]:
        """What the model is told."""
        return tuple(item.message for item in self.items)


def fit(
    prompt_tokens: int,
    groups: Sequence[Group],
    *,
    limit: int,
    reserve: int,
    turn: int = 1,
    summary: Item | None = None,
    reply: Sequence[Item] = (),
) -> Window:
    """The longest run of newest groups that fits beside what goes with every call, the running reply and the answer.

    `groups` come oldest first. The newest `turn` of them, and everything from the newest user message on, are always in
    the window, and so is the running reply: if these alone are too much, the oldest results in it are shortened. The
    summary stands before everything, as long as it fits beside what must be there. A window that leaves groups out
    does not begin with a reply whose question it left out.

    The answer gets `reserve` tokens but never more than half of `limit`, or it would push out what it answers. If the
    newest messages need the room, the reserve shrinks, down to a quarter of `limit`.

    Raises:
        DoesNotFit: what must be there and the smallest reserve exceed `limit`.
    """
    required = _first_required(groups, turn)
    asked = prompt_tokens + sum(group.tokens for group in groups[required:])
    smallest = min(reserve, limit // 4)
    kept = _shortened(reply, limit - smallest - asked)
    least = asked + _cost(kept)
    if least + smallest > limit:
        raise DoesNotFit(needed=least + smallest, limit=limit)
    reserve = min(reserve, limit // 2, limit - least)

    if summary is not None and least + summary.tokens + reserve > limit:
        summary = None
    tokens = least + (summary.tokens if summary else 0)
    start = required
    while start > 0 and tokens + groups[start - 1].tokens + reserve <= limit:
        start -= 1
        tokens += groups[start].tokens
    legal = _first_legal(groups, start, required)
    tokens -= sum(group.tokens for group in groups[start:legal])
    return Window(summary, tuple(groups[legal:]), kept, tokens, limit, reserve, left_out=legal)


def _cost(items: Sequence[Item]) -> int:
    return sum(item.tokens for item in items)


def _shortened(reply: Sequence[Item], room: int) -> tuple[Item, ...]:
    """The reply with as many of its oldest results shortened as it takes to fit into `room`."""
    kept, over = list(reply), _cost(reply) - room
    for position, item in enumerate(reply):
        if over <= 0:
            break
        short = _short(item)
        if short.tokens < item.tokens:
            kept[position] = short
            over -= item.tokens - short.tokens
    return tuple(kept)


def _short(item: Item) -> Item:
    """The item, or what stands for it if it is a result."""
    if not isinstance(item.message, ToolResultMessage):
        return item
    id = item.message.call_id
    tokens = MESSAGE_OVERHEAD + SHORTENED_TOKENS + len(id.encode(errors="replace"))
    return Item(replace(item.message, content=SHORTENED.format(id)), tokens)


def _first_required(groups: Sequence[Group], turn: int) -> int:
    """Where the newest user message, or the turn if it began earlier, begins."""
    newest = len(groups) - 1
    while newest >= 0 and groups[newest].role != "user":
        newest -= 1
    begin = len(groups) - turn
    return max(0, min(newest, begin) if newest >= 0 else begin)


def _first_legal(groups: Sequence[Group], start: int, required: int) -> int:
    """The first place from `start` on after which the first thing said is not a reply; notes of the system may lead."""
    if start == 0:
        return 0
    for position in range(start, required):
        match groups[position].role:
            case "user":
                break
            case "assistant":
                start = position + 1
            case "system":
                pass
    return start
