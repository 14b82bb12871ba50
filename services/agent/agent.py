"""An agent, as data: what is asked, of which model, with which tools and limits."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from services.agent.types import ToolSpec


class OnProgress(Protocol):
    """Takes word of how far a call has come, in the tool's own measure."""

    def __call__(self, progress: float, total: float | None = None, message: str = "", /) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered; with `is_error` it says itself that it could not do it."""

    text: str
    is_error: bool = False
    truncated: bool = False


Call = Callable[[Mapping[str, Any], OnProgress], Awaitable[Answer]]
Check = Callable[[Mapping[str, Any]], str | None]


def takes_anything(_: Mapping[str, Any]) -> None:
    """The check of a tool that can do something with any arguments."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may ask for.

    `call` gets the decoded arguments once `check` has found nothing wrong with them (it returns what is wrong, in
    words for the model). A `ColloquyError` that it raises is told to the model; anything else is only logged.
    """

    spec: ToolSpec
    call: Call
    server: str | None = None
    name_there: str = ""
    """What its server calls it."""
    check: Check = takes_anything
    approval: Literal["auto", "ask"] = "auto"
    reason: str = ""
    """Why somebody has to agree, where `approval` is `ask`."""
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
    max_calls_per_turn: int = 50
    max_calls: int = 250
    """In all turns together."""
