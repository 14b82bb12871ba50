"""Trying prompts and scripts out: with the machinery of a turn, but nothing is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from db.ids import MessageId, ModuleId, PersonaId, RunId, SessionId, UserId, new_id
from db.records import ModuleRecord, RunRecord
from services.casting import CastingOffice
from services.prompt.composer import Composer, Prompt, built_from, planned_for, speak_all
from services.prompt.turn import Said, TurnFacts
from services.scripts.analysis import analyse
from services.scripts.types import ScriptHost
from services.scripts.values import Json

TRIED = "tried"
"""The name of a module that has not been saved."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The turn in which something is tried: whose, with which persona, in which session, after which words."""

    owner_id: UserId
    persona_id: PersonaId | None = None
    session_id: SessionId | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a script did, and the text that its module would have given."""

    said: Said
    content: str


class PromptLab:
    """Resolves templates and runs scripts as a turn would."""

    def __init__(self, composer: Composer, casting: CastingOffice) -> None:
        self._composer = composer
        self._casting = casting

    async def resolve(self, template: str, scene: Scene, *, run_scripts: bool, run_ai: bool) -> Prompt:
        """The template as the system prompt of such a turn. Raises `NotFound` and `PromptTooLarge`."""
        facts = await self._facts(template, scene)
        modules = {name: _restrained(module, run_scripts, run_ai) for name, module in facts.modules.items()}
        async with self._composer.turn(replace(facts, modules=modules), Rehearsal) as turn:
            planned = planned_for(turn, template)
            await speak_all(turn, planned, planned.waits_for)
            built = built_from(turn, planned, planned.waits_for)
            trace = await self._composer.trace(turn, planned, built)
        return Prompt(built.text, turn.usage, trace)

    async def try_script(self, script: str, content: str, scene: Scene, *, run_ai: bool) -> Tried:
        """Run a script that need not be saved. Raises `NotFound` and `PromptTooLarge`."""
        module = _unsaved(scene.owner_id, script, content)
        facts = await self._facts(content, scene)
        if module.requires_ai and not run_ai:
            module = replace(module, requires_ai=False)
        facts = replace(facts, modules={**facts.modules, TRIED: module}, matched={**facts.matched, TRIED: 0})
        around = Rehearsal if run_ai else WithoutAi
        async with self._composer.turn(facts, around) as turn:
            said = await turn.say(TRIED)
            text = "" if said.error else await turn.render(TRIED)
        return Tried(said, text)

    async def _facts(self, template: str, scene: Scene) -> TurnFacts:
        casting, leaf = await self._casting.rehearse(scene.owner_id, scene.persona_id, scene.session_id)
        record = _imagined_run(scene, leaf or MessageId(new_id()))
        return await self._composer.facts(record, casting, template, said_before=[scene.message])


class Rehearsal:
    """A host under whose hands nothing is stored."""

    def __init__(self, host: ScriptHost) -> None:
        self._host = host

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """As the real one, but memories are neither kept nor forgotten."""
        if name == "store_memory":
            return str(new_id())
        if name == "clear_memories":
            return 0
        return await self._host.call(name, arguments)


class WithoutAi(Rehearsal):
    """A rehearsal that asks no model: the answer says so."""

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """As a rehearsal; questions to a model get a stand-in for an answer."""
        if name in ("generate", "reflect"):
            return "(what a model would say)"
        return await super().call(name, arguments)


def _restrained(module: ModuleRecord, run_scripts: bool, run_ai: bool) -> ModuleRecord:
    is_allowed = module.type == "simple" or (run_scripts and (run_ai or not module.requires_ai))
    return module if is_allowed else replace(module, is_active=False)


def _imagined_run(scene: Scene, leaf: MessageId) -> RunRecord:
    session_id = scene.session_id or SessionId(new_id())
    nothing: dict[str, Any] = dict.fromkeys(
        (
            "reply_message_id",
            "interrupt_by",
            "finish_reason",
            "error",
            "usage",
            "timings",
            "last_seq",
            "started_at",
            "finished_at",
        )
    )
    return RunRecord(
        id=RunId(new_id()),
        session_id=session_id,
        owner_id=scene.owner_id,
        client_message_id=TRIED,
        user_message_id=leaf,
        state="running",
        request={"turns": 1},
        first_seq=0,
        created_at=datetime.now(UTC),
        **nothing,
    )


def _unsaved(owner_id: UserId, script: str, content: str) -> ModuleRecord:
    now = datetime.now(UTC)
    return ModuleRecord(
        id=ModuleId(new_id()),
        owner_id=owner_id,
        name=TRIED,
        description="",
        type="advanced",
        content=content,
        script=script,
        trigger_pattern=None,
        trigger_depth=1,
        execution_context="ON_DEMAND",
        timeout_ms=None,
        is_active=True,
        requires_ai=analyse(script).requires_ai,
        analysis=None,
        refers_to=[],
        version=1,
        created_at=now,
        updated_at=now,
    )
