"""Where tools are used."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.agent.agent import Answer, Call, OnProgress, Tool
from services.casting import Casting
from services.runs.active import ActiveRun


@dataclass(frozen=True, slots=True)
class Scene:
    """A run, and who answers in it."""

    run: ActiveRun
    casting: Casting


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool of our own as people are told of it; what models are told may depend on the scene."""

    name: str
    description: str
    by_default: bool = False
    """Whether it is on where nobody says anything of our own tools."""


class BuiltIn(Protocol):
    """Tools of our own that belong together."""

    offers: tuple[Offer, ...]

    async def tools(self, scene: Scene) -> list[Tool]:
        """The tools as they are in this scene; none if there is nothing there that they could do."""
        ...


def calling(does: Callable[..., Awaitable[Answer]]) -> Call:
    """`does`, which takes the tool's arguments by their names, as its call; it has nothing to report on the way."""

    async def call(arguments: Mapping[str, Any], _: OnProgress) -> Answer:
        return await does(**arguments)

    return call


def schema(required: tuple[str, ...] = (), **properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
