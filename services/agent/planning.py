"""Reading the calls of a model's turn: which can be made, and what is wrong with the others. Pure."""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson

from services.agent.agent import Tool
from services.agent.types import ToolCall

_LONGEST_ID = 100
_LONGEST_NAME = 64
_LONGEST_ARGUMENTS = 262_144
_SHOWN = 200
# What every model server takes as a function's name. One that a model made up must not spoil the requests to come.
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class Ready:
    """A call that can be made."""

    call: ToolCall
    tool: Tool
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Faulty:
    """A call that cannot be made; `why` is what the model is told."""

    call: ToolCall
    why: str
    server: str | None = None


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What to do about the calls of one turn, in their order."""

    steps: tuple[Ready | Faulty, ...]

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in a form that every model server takes back: own ids, possible names, arguments that are JSON."""
        return tuple(step.call for step in self.steps)

    @property
    def is_faulty(self) -> bool:
        """Whether not one of the calls can be made."""
        return all(isinstance(step, Faulty) for step in self.steps)


def plan_calls(calls: Sequence[ToolCall], tools: Sequence[Tool], *, room: int, taken: Collection[str] = ()) -> CallPlan:
    """What to do about `calls`: at most `room` are made. Ids that are empty, `taken` or used twice are replaced."""
    by_name = {tool.spec.name: tool for tool in tools}
    steps: list[Ready | Faulty] = []
    used = set(taken)
    for number, call in enumerate(calls):
        own = replace(call, id=_own_id(call.id, used), name=_possible_name(call.name))
        used.add(own.id)
        if number >= room:
            steps.append(Faulty(_bare(own), f"Too many calls: only the first {room} were made, not this one."))
        else:
            steps.append(_step(own, call.name, by_name))
    return CallPlan(tuple(steps))


def _step(call: ToolCall, asked_for: str, tools: Mapping[str, Tool]) -> Ready | Faulty:
    tool = tools.get(asked_for)
    arguments, why = _decoded(call.arguments)
    if not arguments:
        call = _bare(call)
    if tool is None:
        return Faulty(call, f"There is no tool named {asked_for[:_SHOWN]}. {_offer(tools)}")
    if arguments is None:
        return Faulty(call, why, tool.server)
    if wrong := tool.check(arguments):
        return Faulty(call, f"The arguments do not fit the tool: {wrong}", tool.server)
    return Ready(call, tool, arguments)


def _decoded(text: str) -> tuple[dict[str, Any] | None, str]:
    """The arguments, or None and what is wrong with them."""
    if len(text) > _LONGEST_ARGUMENTS:
        return None, f"The arguments are longer than {_LONGEST_ARGUMENTS} characters."
    try:
        decoded: object = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        return None, f"The arguments are not JSON ({error}). They began: {text[:_SHOWN]}"
    if not isinstance(decoded, dict):
        return None, f"The arguments must be a JSON object. They began: {text[:_SHOWN]}"
    return cast("dict[str, Any]", decoded), ""


def _own_id(id: str, used: Collection[str]) -> str:
    if id and len(id) <= _LONGEST_ID and id not in used:
        return id
    return f"call_{secrets.token_hex(8)}"


def _possible_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "unnamed"


def _bare(call: ToolCall) -> ToolCall:
    """The call without arguments that no server would take back."""
    return replace(call, arguments="{}")


def _offer(tools: Mapping[str, Tool]) -> str:
    if not tools:
        return "There are no tools at all."
    names = ", ".join(list(tools)[:20])
    return f"There are: {names}{', …' if len(tools) > 20 else ''}."
