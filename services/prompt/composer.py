"""Composes the system prompt of a turn: stage 1 and stage 2, with the trace that explains it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.records import ModuleRecord, RunRecord
from db.stores.messages import MessageStore
from db.stores.module_results import ModuleResultStore, NewResult
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.variables import VariableStore
from services.agent.types import Usage
from services.casting import Casting
from services.context.tokens import TokenCounter
from services.prompt.archive import RECIPE, recipe_of
from services.prompt.building import Built, Contribution, build
from services.prompt.expansion import DEEPEST
from services.prompt.planning import Plan, plan
from services.prompt.template import parse
from services.prompt.triggers import InvalidTrigger, Trigger, TriggerSet
from services.prompt.turn import HostFor, Said, ScriptTimes, Turn, TurnFacts
from services.runs.active import ActiveRun
from services.runs.events import StageUpdate
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptLimits

_LOOKED_AT = 400
"""Messages that are looked at for the newest ones of the user."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A composed system prompt. `after` are the modules that are to run when the reply is there."""

    text: str
    usage: Usage | None = None
    trace: Mapping[str, Any] = field(default_factory=dict[str, Any])
    after: tuple[str, ...] = ()


class Composer:
    """Makes system prompts out of personas and modules."""

    def __init__(
        self,
        *,
        modules: ModuleStore,
        results: ModuleResultStore,
        variables: VariableStore,
        traces: RunTraceStore,
        messages: MessageStore,
        tokens: TokenCounter,
        sandbox: Sandbox,
        host_for: HostFor,
        limits: ScriptLimits,
        times: ScriptTimes,
    ) -> None:
        self._modules = modules
        self._results = results
        self._variables = variables
        self._traces = traces
        self._messages = messages
        self._tokens = tokens
        self._sandbox = sandbox
        self._host_for = host_for
        self._limits = limits
        self._times = times
        self._triggers = TriggerSets()

    async def compose(self, run: ActiveRun, casting: Casting) -> Prompt:
        """The system prompt of a run, showing its two stages as they go.

        A module that fails contributes what it said last, or nothing: never an error. Raises `PromptTooLarge`.
        """
        facts = await self.facts(run.record, casting, casting.template)
        async with self.turn(facts) as turn:
            planned = planned_for(turn, casting.template)
            built = await build_in_stages(turn, planned, run.emit)
            await keep(turn, self._results, self._variables)
            trace = await self.trace(turn, planned, built)
            await self._store_trace(turn, planned, built.text, trace)
        return Prompt(built.text, turn.usage, trace, _after(facts, planned))

    async def facts(
        self,
        record: RunRecord,
        casting: Casting,
        template: str,
        *,
        reply: str | None = None,
        said_before: Sequence[str] = (),
        unsaved: Sequence[ModuleRecord] = (),
    ) -> TurnFacts:
        """Everything about a turn that is read before a module speaks.

        `said_before` go before the stored messages, and `unsaved` modules before stored ones of their names.
        """
        turns: int = record.request["turns"]
        names = [*parse(template).references, *mentions(said_before), *record.request.get("mentions", ())]
        attached = casting.persona.module_ids if casting.persona else []
        modules = await self._closure(record, names, attached, unsaved)
        if not modules:
            return TurnFacts(record, casting, {}, {}, {}, [], {}, turns, reply)
        depth = max(turns, *(module.trigger_depth for module in modules.values()))
        ids = [module.id for module in modules.values()]
        stored, results, variables = await asyncio.gather(
            self._messages.newest_user_texts(record.session_id, record.user_message_id, count=depth, steps=_LOOKED_AT),
            self._results.get(record.session_id, record.owner_id, ids),
            self._variables.get(record.session_id, record.owner_id, ids),
        )
        texts = [*said_before, *stored]
        triggers = self._triggers.of({name: module.trigger_pattern for name, module in modules.items()})
        return TurnFacts(
            record,
            casting,
            modules,
            results,
            variables,
            texts,
            triggers.matching(texts),
            turns,
            reply,
            () if reply is None else triggers.matching([reply]).keys(),
        )

    def turn(self, facts: TurnFacts, host_for: HostFor | None = None) -> Turn:
        """A turn over these facts, whose scripts may have a host of another kind; `async with` it."""
        return Turn(facts, self._sandbox, host_for or self._host_for, limits=self._limits, times=self._times)

    async def _closure(
        self, record: RunRecord, names: Sequence[str], attached: Sequence[Any], unsaved: Sequence[ModuleRecord]
    ) -> dict[str, ModuleRecord]:
        """The unsaved modules, those with the names or ids, and all that they refer to."""
        found = {module.name: module for module in unsaved}
        wanted, ids = {*names, *(name for module in unsaved for name in _used_by(module))} - found.keys(), attached
        for _ in range(DEEPEST + 1):
            if not wanted and not ids:
                break
            modules = await self._modules.get_by_names(record.owner_id, wanted, ids=ids)
            found = {module.name: module for module in modules} | found
            wanted, ids = {name for module in modules for name in _used_by(module)} - found.keys(), ()
        return found

    async def trace(self, turn: Turn, planned: Plan, built: Built) -> dict[str, Any]:
        """Why each module spoke or not, and what it takes of the prompt."""
        said = turn.finished()
        texts = {insertion.module: insertion.text for insertion in built.insertions}
        asked = dict.fromkeys((*planned.waits_for, *said))  # those that only a script ran come last
        known = turn.facts.modules
        modules = [await self._entry(known[name], said[name], texts.get(name, "")) for name in asked]
        unknown = [{"module": name, "state": "unknown", "why": "there is no such module"} for name in planned.unknown]
        warnings = [warned.message for warned in dict.fromkeys((*planned.warnings, *built.warnings))]
        return {"modules": [*modules, *unknown], "warnings": warnings}

    async def _entry(self, module: ModuleRecord, said: Said, text: str) -> dict[str, Any]:
        return {
            "module": module.name,
            "version": module.version,
            "state": said.state,
            "why": said.why,
            "characters": len(text),
            "tokens": await self._tokens.count(text) if text else 0,
            "ms": said.ms,
            "error": said.error,
        }

    async def _store_trace(self, turn: Turn, planned: Plan, prompt: str, trace: Mapping[str, Any]) -> None:
        record = turn.facts.record
        if turn.facts.casting.persona is not None:
            kept = {**trace, RECIPE: recipe_of(turn, planned)}
            await self._traces.put(record.id, record.owner_id, prompt=prompt, trace=kept)


class TriggerSets:
    """Compiled triggers of the personas that were used last."""

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._sets: OrderedDict[frozenset[tuple[str, str | None]], TriggerSet] = OrderedDict()

    def of(self, patterns: Mapping[str, str | None]) -> TriggerSet:
        """The triggers of modules by name. A pattern that cannot be used never matches; saving refuses those."""
        key = frozenset(patterns.items())
        if key not in self._sets:
            self._sets[key] = TriggerSet({name: t for name, pattern in patterns.items() if (t := _compiled(pattern))})
            if len(self._sets) > self._size:
                self._sets.popitem(last=False)
        self._sets.move_to_end(key)
        return self._sets[key]


def _compiled(pattern: str | None) -> Trigger | None:
    try:
        return Trigger.compile(pattern)
    except InvalidTrigger:
        return None


def planned_for(turn: Turn, template: str) -> Plan:
    """What a template and the modules beside it use in this turn. Raises `PromptTooLarge`."""
    return plan(parse(template), _attached(turn.facts), turn.lookup)


async def build_in_stages(turn: Turn, planned: Plan, show: Callable[[StageUpdate], None]) -> Built:
    """Let all modules speak, those that ask a model after the others, and show both stages. Raises `PromptTooLarge`."""
    in_first, in_second = _staged(turn, planned)
    await _stage(turn, planned, 1, in_first, show)
    turn.prompt = built_from(turn, planned, in_first).text if in_second else ""
    await _stage(turn, planned, 2, in_second, show)
    return built_from(turn, planned, planned.waits_for)


async def first_stage(turn: Turn, template: str) -> str:
    """The prompt as those see it whose scripts ask a model. Raises `PromptTooLarge`."""
    planned = planned_for(turn, template)
    in_first, _ = _staged(turn, planned)
    await speak_all(turn, planned, in_first)
    return built_from(turn, planned, in_first).text


def _staged(turn: Turn, planned: Plan) -> tuple[list[str], list[str]]:
    in_second = [name for name in planned.waits_for if _asks_a_model(turn.facts.modules[name])]
    return [name for name in planned.waits_for if name not in in_second], in_second


async def _stage(
    turn: Turn, planned: Plan, stage: int, names: Collection[str], show: Callable[[StageUpdate], None]
) -> None:
    """Let the stage's modules speak side by side, each after those that it refers to."""
    show(StageUpdate.began(stage))
    await speak_all(turn, planned, names)
    said = turn.finished()
    show(StageUpdate.ended(stage, tuple(status_of(name, said[name]) for name in names)))


async def speak_all(turn: Turn, planned: Plan, names: Collection[str]) -> None:
    """Let modules speak side by side, each after those of them that it refers to."""

    async def one(name: str) -> None:
        for other in planned.waits_for.get(name, frozenset[str]()) & set(names):
            await turn.say(other)
        await turn.say(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))


async def keep(
    turn: Turn, results: ModuleResultStore, variables: VariableStore, *, only: Collection[str] | None = None
) -> None:
    """Store results and variables of the scripts that ran in a turn, all of them or only some."""
    record = turn.facts.record
    ran = [
        (turn.facts.modules[name], said)
        for name, said in turn.finished().items()
        if said.ran and (only is None or name in only)
    ]
    if not ran:
        return
    new = [
        NewResult(module.id, "failed")
        if said.error is not None
        else NewResult(module.id, "spoke", await turn.render(module.name), dict(said.outputs))
        for module, said in ran
    ]
    await results.put(record.id, record.owner_id, new)
    changed = {module.id: said.variables for module, said in ran if said.variables}
    if changed:
        await variables.set(record.session_id, record.owner_id, changed)


def _used_by(module: ModuleRecord) -> list[str]:
    """The modules that its content names and those that its script runs or reads."""
    return [*module.refers_to, *(module.analysis or {}).get("references", ())]


def _attached(facts: TurnFacts) -> list[str]:
    """The persona's further modules in their order, then those that the user named and that wait to be named."""
    by_id = {module.id: name for name, module in facts.modules.items()}
    ids = facts.casting.persona.module_ids if facts.casting.persona else []
    attached = [by_id[id] for id in ids if id in by_id and facts.modules[by_id[id]].execution_context != "ON_DEMAND"]
    return [*attached, *_on_demand(facts)]


def _on_demand(facts: TurnFacts) -> list[str]:
    named = mentions(reversed(facts.user_texts[: facts.turns]))
    return [name for name in named if name in facts.modules and facts.modules[name].execution_context == "ON_DEMAND"]


def mentions(texts: Iterable[str]) -> list[str]:
    """The names that a user's words mention as templates do, in their order."""
    return [name for text in texts if "@" in text for name in parse(text).references]


def _after(facts: TurnFacts, planned: Plan) -> tuple[str, ...]:
    """Modules that are to run after the reply; whether they speak is decided when it is there."""
    modules = [facts.modules[name] for name in planned.waits_for]
    return tuple(module.name for module in modules if module.execution_context == "POST_RESPONSE" and module.is_active)


def _asks_a_model(module: ModuleRecord) -> bool:
    return module.requires_ai and module.execution_context != "POST_RESPONSE" and module.is_active


def built_from(turn: Turn, planned: Plan, names: Collection[str]) -> Built:
    """The prompt as those modules have made it; the others are silent. Raises `PromptTooLarge`."""
    said = turn.finished()
    silent = Contribution(text="")
    contributions = {name: said[name].contribution if name in names else silent for name in planned.waits_for}
    return build(planned, contributions, turn.template_variables)


def status_of(name: str, said: Said) -> dict[str, Any]:
    """What a stage tells of a module."""
    return {"name": name, "status": said.state, "ms": said.ms}
