"""An agent, as data: what is asked, of which model, with which tools and limits."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.agent.types import ToolSpec


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may ask for. `call` gets the decoded arguments and returns what the model is told."""

    spec: ToolSpec
    call: Callable[[Mapping[str, Any]], Awaitable[str]]
    server: str | None = None
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Agent:
    """A model with instructions, tools and limits."""

    model: str
    instructions: str
    controls: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: tuple[Tool, ...] = ()
    max_turns: int = 25
    max_calls_at_once: int = 8
