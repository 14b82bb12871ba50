"""What models thought before they called tools: some servers want it back with the results."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.agent.types import ChatMessage, ModelMessage, ToolCall

_MOST_REMEMBERED = 200
_LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning, and the field in which the server sent it."""

    field: str
    text: str


class Thoughts:
    """Remembers for a while, by the calls that followed. Without it a model thinks anew."""

    def __init__(self) -> None:
        self._by_call: OrderedDict[str, Thought] = OrderedDict()

    def remember(self, call_ids: Iterable[str], thought: Thought | None) -> None:
        """Keep what was thought before these calls."""
        if thought is None or not thought.text or len(thought.text) > _LONGEST:
            return
        for id in call_ids:
            self._by_call[id] = thought
        while len(self._by_call) > _MOST_REMEMBERED:
            self._by_call.popitem(last=False)

    def before(self, calls: Sequence[ToolCall]) -> Thought | None:
        """What was thought before these calls."""
        return next((self._by_call[call.id] for call in calls if call.id in self._by_call), None)


def newest_turn(messages: Sequence[ModelMessage]) -> int:
    """Where the answer to the newest message of the user begins: thoughts of earlier ones are nobody's business."""
    users = (at for at in range(len(messages) - 1, -1, -1) if _is_users(messages[at]))
    return next(users, -1) + 1


def _is_users(message: ModelMessage) -> bool:
    return isinstance(message, ChatMessage) and message.role == "user"
