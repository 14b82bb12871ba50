"""Trying prompts and scripts out: with the machinery of a turn, but nothing is stored save what models have cost."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from db.ids import MemoryId, MessageId, ModuleId, PersonaId, RunId, SessionId, UserId, new_id
from db.records import MemoryRecord, ModuleRecord, RunRecord
from db.stores.memories import MemoryStore
from db.stores.usage import UsageStore
from services.agent.types import Usage
from services.casting import CastingOffice
from services.context.tokens import TokenCounter
from services.errors import RunTimedOut, TooManyRequests
from services.hours import OpenHours
from services.prompt.composer import Turns
from services.prompt.expansion import Warned
from services.prompt.facts import TurnFacts, TurnReader
from services.prompt.leaving import trace_of
from services.prompt.stages import build_in_stages, first_stage, planned_for
from services.prompt.template import parse
from services.prompt.turn import HostFor, Turn
from services.prompt.view import TurnView
from services.runs.retry import until_answered
from services.runs.tasks import whatever_happens
from services.scripts.analysis import Analysis, analyse
from services.scripts.types import ScriptHost, ScriptResult
from services.scripts.values import Json

STAND_IN = "[no model was asked]"
"""What a script is answered where no model is to be asked."""

_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Scene:
    """The turn in which something is tried: whose, with which persona, in which session, after which words.

    Without words, those that the user said last in the session.
    """

    owner_id: UserId
    persona_id: PersonaId | None = None
    session_id: SessionId | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class LabLimits:
    """What trying out may take."""

    seconds: float = 60
    at_once: int = 4
    """Per owner."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A template as the system prompt of a turn. `modules` are those whose text stands in it, in its order."""

    text: str
    warnings: tuple[Warned, ...]
    modules: tuple[str, ...]
    trace: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tried:
    """What a script did, and the text that its module would have given; empty if the script failed."""

    result: ScriptResult
    content: str


class PromptLab:
    """Resolves templates and runs scripts as a turn would."""

    def __init__(
        self,
        casting: CastingOffice,
        *,
        reader: TurnReader,
        turns: Turns,
        tokens: TokenCounter,
        host_for: HostFor,
        usage: UsageStore,
        limits: LabLimits | None = None,
    ) -> None:
        """`host_for`: hosts under whose hands nothing is stored, such as those with `UnkeptMemories`."""
        self._casting = casting
        self._reader = reader
        self._turns = turns
        self._tokens = tokens
        self._host_for = host_for
        self._usage = usage
        self._limits = limits or LabLimits()
        self._busy = Counter[UserId]()
        self._hours = OpenHours()

    def shut_down(self) -> None:
        """End what is being tried, and begin nothing more; whoever waits for it is told `ShuttingDown`."""
        self._hours.close()

    def limited(self, limits: LabLimits) -> "PromptLab":
        """The same lab with other limits."""
        return PromptLab(
            self._casting,
            reader=self._reader,
            turns=self._turns,
            tokens=self._tokens,
            host_for=self._host_for,
            usage=self._usage,
            limits=limits,
        )

    async def resolve(self, template: str, scene: Scene, *, run_scripts: bool, run_ai: bool) -> Resolved:
        """The template as the system prompt of such a turn.

        Raises `NotFound`, `UnknownProvider`, `PromptTooLarge`, `TooManyRequests`, `RunTimedOut` and `ShuttingDown`.
        """
        async with self._room(scene.owner_id):
            facts = await self._facts(template, scene)
            facts = replace(facts, held_back=_held_back(facts, run_scripts, run_ai))
            async with self._trial(scene, facts, run_ai) as turn:
                planned = planned_for(turn, template)
                built = await build_in_stages(turn, planned, lambda _: None)
                trace = await trace_of(turn, planned, built, self._tokens)
        warnings = tuple(dict.fromkeys((*planned.warnings, *built.warnings)))
        return Resolved(built.text, warnings, tuple(one.module for one in built.insertions if one.text), trace)

    async def try_script(self, script: str, content: str, scene: Scene, *, run_ai: bool) -> Tried:
        """Run a script that need not be saved, and render its content with what it has set. Raises what `resolve` does.

        Modules that it runs or names run too.
        """
        async with self._room(scene.owner_id):
            analysis = await asyncio.to_thread(analyse, script)
            module = _unsaved(scene.owner_id, script, content, analysis, run_ai)
            facts = await self._facts(None, scene, module)
            async with self._trial(scene, facts, run_ai) as turn:
                if run_ai and "reflect" in analysis.functions:
                    turn.prompt = await first_stage(turn, facts.casting.template)
                said = await turn.say(module.name)
                text = "" if said.error else await turn.render(module.name)
        return Tried(said.result or _NOTHING, text)

    async def _facts(self, template: str | None, scene: Scene, *unsaved: ModuleRecord) -> TurnFacts:
        """`template` stands in place of the persona's."""
        casting, leaf = await self._casting.rehearse(scene.owner_id, scene.persona_id, scene.session_id)
        record = _imagined_run(scene, leaf or MessageId(new_id()))
        said = [] if scene.message is None else [scene.message]
        template = casting.template if template is None else template
        return await self._reader.facts(record, casting, template, said_before=said, unsaved=unsaved)

    @asynccontextmanager
    async def _trial(self, scene: Scene, facts: TurnFacts, run_ai: bool) -> AsyncGenerator[Turn, None]:
        """A turn; what its questions to models have cost is written down, however it ends."""
        async with self._turns.turn(facts, self._host(run_ai)) as turn:
            try:
                yield turn
            finally:
                if turn.usage is not None:
                    await whatever_happens(self._keep(scene, turn.usage))

    async def _keep(self, scene: Scene, usage: Usage) -> None:
        trial_id = new_id()
        await until_answered(
            lambda: self._usage.add_trial(
                trial_id,
                scene.owner_id,
                scene.session_id,
                scene.persona_id,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                thinking_tokens=usage.thinking_tokens,
            ),
            attempts=_ATTEMPTS,
        )

    def _host(self, run_ai: bool) -> HostFor:
        return self._host_for if run_ai else lambda view: WithoutAi(self._host_for(view), view)

    @asynccontextmanager
    async def _room(self, owner_id: UserId) -> AsyncGenerator[None, None]:
        """A place among those of the owner, for so long as trying may take."""
        most, seconds = self._limits.at_once, self._limits.seconds
        if self._busy[owner_id] >= most:
            raise TooManyRequests(f"{most} prompts and scripts are being tried out already.", retry_after=2, limit=most)
        self._busy[owner_id] += 1
        clock = asyncio.timeout(seconds)
        try:
            async with self._hours.until_closed(), clock:
                yield
        except TimeoutError:
            # Any other one is somebody else's.
            if not clock.expired():
                raise
            raise RunTimedOut(f"Trying it out took longer than {seconds:g} s.") from None
        finally:
            self._busy -= Counter([owner_id])  # forgets those who have nothing under way


class UnkeptMemories(MemoryStore):
    """Memories that can be read; new ones are not kept, and none is forgotten."""

    async def add(
        self,
        memory_id: MemoryId,
        session_id: SessionId,
        owner_id: UserId,
        content: str,
        *,
        first_message: int | None = None,
        last_message: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryRecord | None:
        """The memory as it would be kept."""
        now = datetime.now(UTC)
        return MemoryRecord(
            memory_id, session_id, owner_id, content, first_message, last_message, dict(metadata or {}), now
        )

    async def clear(self, session_id: SessionId, owner_id: UserId) -> int:
        """How many would be forgotten."""
        return await self.count(session_id, owner_id)


class WithoutAi:
    """A host that asks no model: scripts get `STAND_IN` for an answer, so that they run on to their end."""

    def __init__(self, host: ScriptHost, view: TurnView) -> None:
        self._host = host
        self._view = view

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """As the host; questions to a model are counted and not asked. Raises what the host raises."""
        if name not in ("generate", "reflect"):
            return await self._host.call(name, arguments)
        self._view.begin_generation()
        return STAND_IN


_NOTHING = ScriptResult(outputs={}, printed="", logs=(), calls=0, error=None, duration_ms=0)


def _held_back(facts: TurnFacts, run_scripts: bool, run_ai: bool) -> dict[str, str]:
    """Modules that are not to run here, and why. What speaks only after replies has its stored words."""
    scripts = {
        name: module
        for name, module in facts.modules.items()
        if module.type == "advanced" and module.script.strip() and module.execution_context != "POST_RESPONSE"
    }
    if not run_scripts:
        return dict.fromkeys(scripts, "scripts were not to be run")
    asking = [name for name, module in scripts.items() if module.requires_ai]
    return {} if run_ai else dict.fromkeys(asking, "no model was to be asked")


def _imagined_run(scene: Scene, leaf: MessageId) -> RunRecord:
    return RunRecord(
        id=RunId(new_id()),
        session_id=scene.session_id or SessionId(new_id()),
        owner_id=scene.owner_id,
        client_message_id="",
        user_message_id=leaf,
        reply_message_id=None,
        state="running",
        request={"turns": 1},
        interrupt_by=None,
        finish_reason=None,
        error=None,
        usage=None,
        timings=None,
        first_seq=0,
        last_seq=None,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


def _unsaved(owner_id: UserId, script: str, content: str, analysis: Analysis, run_ai: bool) -> ModuleRecord:
    refers_to = list(parse(content).references)
    name = "tried"
    while name in refers_to or name in analysis.references:
        name += "_"
    now = datetime.now(UTC)
    return ModuleRecord(
        id=ModuleId(new_id()),
        owner_id=owner_id,
        name=name,
        description="",
        type="advanced",
        content=content,
        script=script,
        trigger_pattern=None,
        trigger_depth=1,
        execution_context="ON_DEMAND",
        timeout_ms=None,
        is_active=True,
        requires_ai=analysis.requires_ai and run_ai,
        analysis={"references": list(analysis.references)},
        refers_to=refers_to,
        version=1,
        created_at=now,
        updated_at=now,
    )
