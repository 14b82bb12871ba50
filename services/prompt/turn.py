"""The modules of one turn: when they speak, and what they say. Each runs at most once."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from db.ids import ModuleId
from db.records import ModuleRecord, ModuleResultRecord, RunRecord
from services.agent.types import Usage
from services.casting import Casting
from services.prompt.building import Contribution, build
from services.prompt.planning import plan
from services.prompt.template import Template, parse
from services.prompt.view import TurnView
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptFault, ScriptHost, ScriptLimits, ScriptResult
from services.scripts.values import Json

SILENT = Template(())
_DEEPEST_CALL = 3
_GENERATIONS = 10

ModuleState = Literal["spoke", "silent", "failed", "stale"]
HostFor = Callable[[TurnView], ScriptHost]


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What is known when a turn begins. `user_texts` come newest first; `reply` is there once the model answered."""

    record: RunRecord
    casting: Casting
    modules: Mapping[str, ModuleRecord]
    results: Mapping[ModuleId, ModuleResultRecord]
    variables: Mapping[ModuleId, Mapping[str, Any]]
    user_texts: Sequence[str]
    matched: Mapping[str, int]
    """Modules whose trigger matches, each with the position in `user_texts` at which it does first."""
    turns: int = 1
    reply: str | None = None
    matched_by_reply: Collection[str] = ()
    held_back: Mapping[str, str] = field(default_factory=dict[str, str])
    """Modules that are not to speak although they would, each with the reason."""

    @property
    def user_message(self) -> str:
        """What the user says in this turn."""
        return "\n\n".join(reversed(self.user_texts[: self.turns]))


@dataclass(frozen=True, slots=True)
class ScriptTimes:
    """Milliseconds that a script may take, unless its module says otherwise."""

    without_ai: int = 2_000
    with_ai: int = 30_000


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one module. `why` explains silence and staleness; a stale one says what it said last."""

    state: ModuleState
    contribution: Contribution
    why: str = ""
    ran: bool = False
    outputs: Mapping[str, Json] = field(default_factory=dict[str, Json])
    variables: Mapping[str, Json] = field(default_factory=dict[str, Json])
    error: Mapping[str, Any] | None = None
    ms: int = 0
    result: ScriptResult | None = None
    """All that its script left behind, if one ran."""


class Turn:
    """`async with` ends whatever still runs."""

    def __init__(
        self, facts: TurnFacts, sandbox: Sandbox, host_for: HostFor, *, limits: ScriptLimits, times: ScriptTimes
    ) -> None:
        self.facts = facts
        self.prompt = ""
        self.usage: Usage | None = None
        self.template_variables = _built_ins(facts)
        self._sandbox = sandbox
        self._host_for = host_for
        self._limits = limits
        self._times = times
        self._tasks: dict[str, asyncio.Task[Said]] = {}
        self._waits: dict[str, str] = {}
        self._asked_by: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def lookup(self, name: str) -> Template | None:
        """The content of a module as far as it counts in this turn; None if there is no such module."""
        module = self.facts.modules.get(name)
        if module is None:
            return None
        if self.why_silent(module) or self._is_for_later(module):
            return SILENT
        return parse(module.content)

    def why_silent(self, module: ModuleRecord) -> str | None:
        """Why a module has nothing to say in this turn; None if it speaks."""
        if not module.is_active:
            return "it is switched off"
        if not self._is_called_for(module):
            return "its trigger did not match"
        return self.facts.held_back.get(module.name)

    async def say(self, name: str, *, asked_by: str | None = None) -> Said:
        """What a module says; it runs when it is first asked. Raises `ScriptFault` if it would wait for itself."""
        if asked_by is None:
            return await asyncio.shield(self._task(name, None))
        if self._would_circle(asked_by, name):
            raise ScriptFault(f"{name} is waiting for {asked_by} itself")
        self._waits[asked_by] = name
        try:
            return await asyncio.shield(self._task(name, asked_by))
        finally:
            del self._waits[asked_by]

    async def text_of(self, name: str, *, asked_by: str) -> str:
        """The whole text of a module, with everything that it refers to. Raises `ScriptFault`."""
        if name not in self.facts.modules:
            raise ScriptFault(f"there is no module {name}")
        if self.depth(asked_by) >= _DEEPEST_CALL:
            raise ScriptFault(f"modules call each other at most {_DEEPEST_CALL} deep")
        await self.say(name, asked_by=asked_by)
        return await self.render(name, asked_by=asked_by)

    async def render(self, name: str, *, asked_by: str | None = None) -> str:
        """The text of one module by itself."""
        parts = plan(parse(f"@{{{name}}}"), (), self.lookup)
        contributions = {part: (await self.say(part, asked_by=asked_by)).contribution for part in parts.waits_for}
        return build(parts, contributions, self.template_variables).text

    def output_of(self, module: str, output: str) -> Json:
        """An output of this turn if the module has finished, else the one that is stored."""
        found = self.facts.modules.get(module)
        if found is None:
            return None
        task = self._tasks.get(module)
        if task and task.done() and not task.cancelled() and task.exception() is None and task.result().ran:
            return task.result().outputs.get(output)
        stored = self.facts.results.get(found.id)
        return stored.outputs.get(output) if stored else None

    def spend(self, usage: Usage) -> None:
        """Add to what the turn's modules cost."""
        self.usage = usage if self.usage is None else self.usage + usage

    def depth(self, name: str) -> int:
        """How many modules have called each other until this one."""
        depth = 1
        while (caller := self._asked_by.get(name)) is not None and depth <= _DEEPEST_CALL:
            name, depth = caller, depth + 1
        return depth

    def finished(self) -> dict[str, Said]:
        """What every module that has been asked said."""
        return {
            name: task.result()
            for name, task in self._tasks.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    def _task(self, name: str, asked_by: str | None) -> asyncio.Task[Said]:
        if name not in self._tasks:
            if asked_by is not None:
                self._asked_by[name] = asked_by
            self._tasks[name] = asyncio.create_task(self._speak(self.facts.modules[name]), name=f"module {name}")
        return self._tasks[name]

    def _would_circle(self, asked_by: str, name: str) -> bool:
        while name != asked_by:
            following = self._waits.get(name)
            if following is None:
                return False
            name = following
        return True

    def _is_called_for(self, module: ModuleRecord) -> bool:
        if module.execution_context == "ON_DEMAND":
            return True  # whoever names it wants it
        if module.execution_context == "POST_RESPONSE" and self.facts.reply is None:
            return True  # it is asked when the reply is there
        depth = max(module.trigger_depth, self.facts.turns)
        return self.facts.matched.get(module.name, depth) < depth or module.name in self.facts.matched_by_reply

    def _is_for_later(self, module: ModuleRecord) -> bool:
        return module.execution_context == "POST_RESPONSE" and self.facts.reply is None

    async def _speak(self, module: ModuleRecord) -> Said:
        if why := self.why_silent(module):
            return Said("silent", Contribution(text=""), why)
        if self._is_for_later(module):
            return self._from_before(module)
        if module.type == "simple" or not module.script.strip():
            # After the reply even a plain text has its run: it is what the next turn is to read.
            return Said("spoke", Contribution(), ran=module.execution_context == "POST_RESPONSE")
        if self.facts.reply is not None and self._has_run(module):
            return self._from_before(module)
        begun = time.monotonic()
        said = await self._run(module)
        return replace(said, ms=round((time.monotonic() - begun) * 1000))

    def _has_run(self, module: ModuleRecord) -> bool:
        """Whether the module has had its run in this turn, before the reply or before a restart."""
        stored = self.facts.results.get(module.id)
        return stored is not None and stored.run_id == self.facts.record.id

    def _from_before(self, module: ModuleRecord) -> Said:
        stored = self.facts.results.get(module.id)
        if stored is None:
            return Said("silent", Contribution(text=""), "it runs after replies, and has not run yet")
        state: ModuleState = "spoke" if stored.state == "spoke" else "stale"
        why = "" if state == "spoke" else "its last run failed"
        return Said(state, Contribution(text=stored.text), why, outputs=stored.outputs)

    async def _run(self, module: ModuleRecord) -> Said:
        view = ModuleView(self, module)
        standard = self._times.with_ai if module.requires_ai else self._times.without_ai
        limits = replace(self._limits, timeout_ms=module.timeout_ms or standard)
        result = await self._sandbox.run(module.script, self._host_for(view), limits, may_use_ai=True)
        if result.error is not None:
            error = result.error
            place = {"type": error.type, "message": error.message, "line": error.line, "column": error.column}
            stored = self.facts.results.get(module.id)
            state: ModuleState = "failed" if stored is None else "stale"
            last = Contribution(text="" if stored is None else stored.text)
            return Said(state, last, error.message, ran=True, error=place, result=result)
        texts = {name: _as_text(value) for name, value in result.outputs.items()}
        text = None if module.content.strip() else "\n".join(texts.values())
        return Said(
            "spoke",
            Contribution(text, texts),
            ran=True,
            outputs=result.outputs,
            variables=view.changed_variables(),
            result=result,
        )


class ModuleView:
    """One module's sight of its turn."""

    def __init__(self, turn: Turn, module: ModuleRecord) -> None:
        self._turn = turn
        self._generations = 0
        self._known = dict(turn.facts.variables.get(module.id, {}))
        self.record = turn.facts.record
        self.casting = turn.facts.casting
        self.module = module
        self.user_message = turn.facts.user_message
        self.reply = turn.facts.reply
        self.variables: dict[str, Json] = dict(self._known)

    @property
    def prompt(self) -> str:
        """The system prompt as far as it is composed."""
        return self._turn.prompt

    def module_output(self, module: str, output: str) -> Json:
        """The newest finished output of another module; None if there is none."""
        return self._turn.output_of(module, output)

    async def run_module(self, name: str) -> str:
        """The text of another module, which runs once in a turn. Raises `ScriptFault`."""
        return await self._turn.text_of(name, asked_by=self.module.name)

    def begin_generation(self) -> None:
        """Count one question to a model. Raises `ScriptFault`."""
        self._generations += 1
        if self._generations > _GENERATIONS:
            raise ScriptFault(f"a module asks a model at most {_GENERATIONS} times in a turn")
        if self._turn.depth(self.module.name) > _DEEPEST_CALL:
            raise ScriptFault(f"models are asked at most {_DEEPEST_CALL} modules deep")

    def spend(self, usage: Usage) -> None:
        """Add what a question cost to the run's usage."""
        self._turn.spend(usage)

    def changed_variables(self) -> dict[str, Json]:
        """The variables that the script has set."""
        return {name: value for name, value in self.variables.items() if self._known.get(name, self) != value}


def _built_ins(facts: TurnFacts) -> dict[str, str]:
    # The time is that of the message, so that a stored run gives the same prompt again.
    at = facts.record.created_at
    persona = facts.casting.persona
    return {
        "user.name": facts.casting.user_name,
        "persona.name": persona.name if persona else "",
        "session.title": facts.casting.session_title or "",
        "now": at.strftime("%Y-%m-%d %H:%M"),
        "date": at.strftime("%Y-%m-%d"),
        "model": facts.casting.model,
    }


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
