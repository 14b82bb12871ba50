"""The stages of a turn in which modules speak: 1 and 2 make the prompt, 4 and 5 follow the reply (stage 3)."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from db.records import ModuleRecord
from services.prompt.building import Built, Contribution, build
from services.prompt.planning import Plan, plan
from services.prompt.said import Said
from services.prompt.turn import Turn
from services.runs.events import StageUpdate


def planned_for(turn: Turn, template: str) -> Plan:
    """What a template and the modules beside it use in this turn. Raises `PromptTooLarge`."""
    return plan(turn.read(template), turn.facts.attached, turn.lookup)


async def build_in_stages(turn: Turn, planned: Plan, show: Callable[[StageUpdate], None]) -> Built:
    """Let all modules speak, those that ask a model after the others, and show both stages. Raises `PromptTooLarge`."""
    in_first, in_second = _staged(turn, planned)
    await _perform(turn, planned, 1, in_first, show)
    turn.prompt = _built_from(turn, planned, in_first).text if in_second else ""
    await _perform(turn, planned, 2, in_second, show)
    return _built_from(turn, planned, planned.waits_for)


async def first_stage(turn: Turn, template: str) -> str:
    """The prompt as those see it whose scripts ask a model. Raises `PromptTooLarge`."""
    planned = planned_for(turn, template)
    in_first, _ = _staged(turn, planned)
    await speak_all(turn, planned, in_first)
    return _built_from(turn, planned, in_first).text


async def speak_all(turn: Turn, planned: Plan, names: Collection[str]) -> None:
    """Let modules speak side by side, each after those of them that it refers to."""
    running = [name for name in names if turn.say_at_once(name) is None]
    if not running:
        return

    async def one(name: str) -> None:
        for other in planned.waits_for[name].intersection(names):
            await turn.say(other)
        await turn.say(name)

    try:
        async with asyncio.TaskGroup() as group:
            for name in running:
                group.create_task(one(name))
    except ExceptionGroup as together:  # the first that broke tells why
        raise together.exceptions[0] from together


def ended(turn: Turn, stage: int, names: Collection[str]) -> StageUpdate:
    """What is told of a stage when its modules have spoken."""
    said = turn.finished()
    return StageUpdate.ended(stage, tuple(status_of(name, said[name]) for name in names))


def after_the_reply(turn: Turn, planned: Plan) -> tuple[list[str], list[str]]:
    """The modules of stages 4 and 5."""
    due = [name for name in planned.waits_for if waits_for_reply(turn.facts.modules[name])]
    asking = [name for name in due if turn.facts.modules[name].requires_ai]
    return [name for name in due if name not in asking], asking


def waits_for_reply(module: ModuleRecord) -> bool:
    """Whether the module is to run after the reply; whether it speaks is decided when that is there."""
    return module.execution_context == "POST_RESPONSE" and module.is_active


def status_of(name: str, said: Said) -> dict[str, Any]:
    """What a stage tells of a module."""
    return {"name": name, "status": said.state, "ms": said.ms}


async def _perform(
    turn: Turn, planned: Plan, stage: int, names: Collection[str], show: Callable[[StageUpdate], None]
) -> None:
    show(StageUpdate.began(stage))
    await speak_all(turn, planned, names)
    show(ended(turn, stage, names))


def _staged(turn: Turn, planned: Plan) -> tuple[list[str], list[str]]:
    in_second = [name for name in planned.waits_for if _asks_a_model(turn.facts.modules[name])]
    return [name for name in planned.waits_for if name not in in_second], in_second


def _asks_a_model(module: ModuleRecord) -> bool:
    return module.requires_ai and module.execution_context != "POST_RESPONSE" and module.is_active


def _built_from(turn: Turn, planned: Plan, names: Collection[str]) -> Built:
    """The prompt as those modules have made it; the others are silent. Raises `PromptTooLarge`."""
    said: Mapping[str, Said] = turn.finished()
    silent = Contribution(text="")
    contributions = {name: said[name].contribution if name in names else silent for name in planned.waits_for}
    return build(planned, contributions, turn.template_variables)
