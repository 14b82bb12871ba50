"""How many tokens there are for a conversation, and what takes them before anybody has said anything. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Room:
    """What a model takes, and what goes with each of its calls. All in tokens as we count them.

    Where we count one, the model's server counts `factor`; `told` is what people are told.
    """

    limit: int
    reserve: int
    """For the answer."""
    prompt: int
    tools: int
    compact_at: float = 0.8
    """From which share on of what there is beside the answer older messages are to be summarized."""

    factor: float = 1.0
    window: int | None = None
    """The model's window as its server tells it."""

    @classmethod
    def calibrated(
        cls, limit: int, reserve: int, *, prompt: int, tools: int, compact_at: float, factor: float
    ) -> "Room":
        """The room that a window leaves in which the model's server counts."""
        return cls(int(limit / factor), int(reserve / factor), prompt, tools, compact_at, factor, limit)

    @classmethod
    def of(cls, context: Mapping[str, Any], compact_at: float) -> "Room":
        """What a run had, from what is stored of what filled its window."""
        parts, factor = context["parts"], context.get("factor", 1.0)
        return cls.calibrated(
            context["limit"],
            parts["reserve"],
            prompt=int(parts["system"] / factor),
            tools=int(parts.get("tools", 0) / factor),
            compact_at=compact_at,
            factor=factor,
        )

    @property
    def fixed(self) -> int:
        """What is there before anybody has said anything."""
        return self.prompt + self.tools

    @property
    def threshold(self) -> int:
        """From how many tokens on older messages are to be summarized."""
        return int((self.limit - min(self.reserve, self.limit // 2)) * self.compact_at)

    def told(self, tokens: int) -> int:
        """So many tokens of ours, as the model's server would count them."""
        return int(tokens * self.factor)

    def kept(self, share: float) -> int:
        """How many tokens the newest messages may have, for them and what is fixed to fill so much of the threshold."""
        return max(0, int(self.threshold * share) - self.fixed)
