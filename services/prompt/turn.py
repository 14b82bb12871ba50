"""The modules of one turn: when they speak, and what they say. Each runs at most once."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from db.records import ModuleRecord
from services.agent.types import Usage
from services.prompt.building import Contribution, build
from services.prompt.facts import TurnFacts
from services.prompt.planning import Plan, plan
from services.prompt.said import ModuleState, Said, texts_of
from services.prompt.sight import ModuleSight
from services.prompt.template import ModuleRef, Template, parse
from services.prompt.view import TurnView
from services.scripts.places import Hurry
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptError, ScriptFault, ScriptHost, ScriptLimits, ScriptResult
from services.scripts.values import Json
from services.scripts.workers import InterpreterMissing

SILENT = Template(())
DEEPEST_CALL = 3
"""How deep modules call each other."""

HostFor = Callable[[TurnView], ScriptHost]
Read = Callable[[str], Template]


@dataclass(frozen=True, slots=True)
class ScriptTimes:
    """Milliseconds that a script may take, unless its module says otherwise."""

    without_ai: int = 2_000
    with_ai: int = 30_000


class Turn:
    """`async with` ends whatever still runs."""

    def __init__(
        self,
        facts: TurnFacts,
        sandbox: Sandbox,
        host_for: HostFor,
        *,
        limits: ScriptLimits,
        times: ScriptTimes,
        read: Read = parse,
    ) -> None:
        self.facts = facts
        self.read = read
        self.prompt = ""
        self.usage: Usage | None = None
        self.template_variables = facts.built_ins
        self._sandbox = sandbox
        self._host_for = host_for
        self._limits = limits
        self._times = times
        self._said: dict[str, Said] = {}
        self._tasks: dict[str, asyncio.Task[Said]] = {}
        self._waits: dict[str, str] = {}
        self._asked_by: dict[str, str] = {}
        self._hurries = defaultdict[str, Hurry](Hurry)

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
        return self.read(module.content)

    def why_silent(self, module: ModuleRecord) -> str | None:
        """Why a module has nothing to say in this turn; None if it speaks."""
        if not module.is_active:
            return "it is switched off"
        if not self._is_called_for(module):
            return "its trigger did not match"
        return self.facts.held_back.get(module.name)

    # --- asking ------------------------------------------------------------------------------------------------

    def say_at_once(self, name: str) -> Said | None:
        """What a module says, if that is known or needs no script; None if its script must run first."""
        said = self._said.get(name) or self._without_script(self.facts.modules[name])
        if said is not None:
            self._said[name] = said
        return said

    async def say(self, name: str, *, asked_by: str | None = None) -> Said:
        """What a module says; it runs when it is first asked. Raises `ScriptFault` if it would wait for itself."""
        if said := self.say_at_once(name):
            return said
        if asked_by is None:
            return await asyncio.shield(self._task(name, None))
        if self._would_circle(asked_by, name):
            raise ScriptFault(f"{name} is waiting for {asked_by} itself")
        self._waits[asked_by] = name
        self._hurries[name].set()
        try:
            return await asyncio.shield(self._task(name, asked_by))
        finally:
            del self._waits[asked_by]

    async def text_of(self, name: str, *, asked_by: str) -> str:
        """The whole text of a module, with everything that it refers to. Raises `ScriptFault`, `PromptTooLarge`."""
        if name not in self.facts.modules:
            raise ScriptFault(f"there is no module {name}")
        if self.depth(asked_by) >= DEEPEST_CALL:
            raise ScriptFault(f"modules call each other at most {DEEPEST_CALL} deep")
        await self.say(name, asked_by=asked_by)
        parts = self._alone(name)
        for part in parts.waits_for:
            await self.say(part, asked_by=asked_by)
        return self._built(parts)

    async def render(self, name: str) -> str:
        """The text of one module by itself. Raises `PromptTooLarge`."""
        parts = self._alone(name)
        for part in parts.waits_for:
            await self.say(part)
        return self._built(parts)

    # --- what was said -----------------------------------------------------------------------------------------

    def finished(self) -> Mapping[str, Said]:
        """What every module that has been asked said."""
        return self._said

    def text_now(self, name: str) -> str:
        """The text of one module by itself, of what has been said until now. Raises `PromptTooLarge`."""
        return self._built(self._alone(name))

    def output_of(self, module: str, output: str) -> Json:
        """An output of this turn if the module has finished, else the one that is stored."""
        found = self.facts.modules.get(module)
        if found is None:
            return None
        said = self._said.get(module)
        if said is not None and said.ran and said.error is None:
            return said.outputs.get(output)
        stored = self.facts.results.get(found.id)
        return stored.outputs.get(output) if stored else None

    def spend(self, usage: Usage) -> None:
        """Add to what the turn's modules cost."""
        self.usage = usage if self.usage is None else self.usage + usage

    def depth(self, name: str) -> int:
        """How many modules have called each other until this one."""
        depth = 1
        while (caller := self._asked_by.get(name)) is not None and depth <= DEEPEST_CALL:
            name, depth = caller, depth + 1
        return depth

    def _alone(self, name: str) -> Plan:
        return plan(Template((ModuleRef(name, f"@{{{name}}}"),)), (), self.lookup)

    def _built(self, parts: Plan) -> str:
        said = {part: self._said[part].contribution for part in parts.waits_for if part in self._said}
        unasked = {part: Contribution(text="") for part in parts.waits_for if part not in said}
        return build(parts, said | unasked, self.template_variables).text

    # --- speaking ----------------------------------------------------------------------------------------------

    def _task(self, name: str, asked_by: str | None) -> asyncio.Task[Said]:
        if name not in self._tasks:
            if asked_by is not None:
                self._asked_by[name] = asked_by
            self._tasks[name] = asyncio.create_task(self._run(self.facts.modules[name]), name=f"module {name}")
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

    def _without_script(self, module: ModuleRecord) -> Said | None:
        if why := self.why_silent(module):
            return Said("silent", Contribution(text=""), why)
        if self._is_for_later(module):
            return self._from_before(module)
        if module.type == "simple" or not module.script.strip():
            # After the reply even a plain text has its run: it is what the next turn is to read.
            return Said("spoke", Contribution(), ran=module.execution_context == "POST_RESPONSE")
        return self._from_before(module) if self._has_run(module) else None

    def _has_run(self, module: ModuleRecord) -> bool:
        """Whether the module has had its run in this turn: before the reply, or before the turn was begun anew."""
        stored = self.facts.results.get(module.id)
        return stored is not None and stored.run_id == self.facts.record.id

    def _from_before(self, module: ModuleRecord) -> Said:
        stored = self.facts.results.get(module.id)
        if stored is None:
            return Said("silent", Contribution(text=""), "it runs after replies, and has not run yet")
        words = Contribution(stored.text, texts_of(stored.outputs))
        if stored.state == "spoke":
            return Said("spoke", words, outputs=stored.outputs)
        state = "stale" if stored.text or stored.outputs else "failed"
        return Said(state, words, "its last run failed", outputs=stored.outputs)

    async def _run(self, module: ModuleRecord) -> Said:
        begun = time.monotonic()
        sight = ModuleSight(self, module)
        result = await self._run_script(module, sight)
        ms = round((time.monotonic() - begun) * 1000)
        if result.error is not None:
            said = self._failed(module, result.error, result, ms)
        else:
            texts = texts_of(result.outputs)
            words = Contribution(None if module.content.strip() else "\n".join(texts.values()), texts)
            said = Said("spoke", words, "", True, result.outputs, sight.changed_variables(), ms=ms, result=result)
        self._said[module.name] = said
        return said

    async def _run_script(self, module: ModuleRecord, sight: ModuleSight) -> ScriptResult:
        standard = self._times.with_ai if module.requires_ai else self._times.without_ai
        limits = replace(self._limits, timeout_ms=module.timeout_ms or standard)
        hurry = self._hurries[module.name]
        try:
            return await self._sandbox.run(
                module.script,
                self._host_for(sight),
                limits,
                may_use_ai=True,
                timezone=self.facts.casting.timezone,
                hurry=hurry,
            )
        except InterpreterMissing as missing:  # that costs the words of scripts, and nobody a reply
            error = ScriptError(type(missing).__name__, missing.message)
            return ScriptResult(outputs={}, printed="", logs=(), calls=0, error=error, duration_ms=0)

    def _failed(self, module: ModuleRecord, error: ScriptError, result: ScriptResult, ms: int) -> Said:
        """It says what it said last, and nothing if it has never spoken."""
        stored = self.facts.results.get(module.id)
        last = Contribution(text="") if stored is None else Contribution(stored.text, texts_of(stored.outputs))
        place = {"type": error.type, "message": error.message, "line": error.line, "column": error.column}
        state: ModuleState = "failed" if stored is None else "stale"
        return Said(state, last, error.message, ran=True, error=place, ms=ms, result=result)
