"""How many tokens there are for a conversation, and what takes them before anybody has said anything. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Room:
    """What a model takes, and what goes with each of its calls. All in tokens."""

    limit: int
    reserve: int
    """For the answer."""
    prompt: int
    tools: int
    compact_at: float = 0.8
    """From which share on of what there is beside the answer older messages are to be summarized."""

    @classmethod
    def of(cls, context: Mapping[str, Any], compact_at: float) -> "Room":
        """What a run had, from what is stored of what filled its window."""
        parts = context["parts"]
        return cls(context["limit"], parts["reserve"], parts["system"], parts.get("tools", 0), compact_at)

    @property
    def fixed(self) -> int:
        """What is there before anybody has said anything."""
        return self.prompt + self.tools

    @property
    def threshold(self) -> int:
        """From how many tokens on older messages are to be summarized."""
        return int((self.limit - min(self.reserve, self.limit // 2)) * self.compact_at)

    def kept(self, share: float) -> int:
        """How many tokens the newest messages may have, for them and what is fixed to fill so much of the threshold."""
        return max(0, int(self.threshold * share) - self.fixed)
