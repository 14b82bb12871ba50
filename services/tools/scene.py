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


class BuiltIn(Protocol):
    """A tool of our own."""

    name: str
    description: str
    """For people: what models are told may depend on the scene."""

    async def tool(self, scene: Scene) -> Tool | None:
        """The tool as it is in this scene; None if there is nothing there that it could do."""
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
