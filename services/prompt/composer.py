"""Composes the system prompt of a turn: stage 1 and stage 2, with the trace that explains it."""

from dataclasses import dataclass

from db.records import RunRecord
from db.stores.run_traces import RunTraceStore
from db.stores.turns import NewResult, NewTrace, TurnStore
from services.casting import Casting
from services.context.tokens import TokenCounter
from services.prompt.archive import RECIPE, recipe_of
from services.prompt.building import Built
from services.prompt.facts import TurnFacts, TurnReader
from services.prompt.leaving import results_of, trace_of
from services.prompt.planning import Plan
from services.prompt.shelf import Shelf
from services.prompt.stages import build_in_stages, planned_for, waits_for_reply
from services.prompt.turn import HostFor, ScriptTimes, Turn
from services.runs.active import ActiveRun
from services.runs.retry import until_answered
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptLimits


@dataclass(frozen=True, slots=True)
class Prompt:
    """A composed system prompt. `after` are the modules that are to run when the reply is there."""

    text: str
    after: tuple[str, ...] = ()


class Turns:
    """Makes turns: all that they have in common."""

    def __init__(
        self, sandbox: Sandbox, host_for: HostFor, shelf: Shelf, *, limits: ScriptLimits, times: ScriptTimes
    ) -> None:
        self._sandbox = sandbox
        self._host_for = host_for
        self._shelf = shelf
        self._limits = limits
        self._times = times

    def turn(self, facts: TurnFacts, host_for: HostFor | None = None) -> Turn:
        """A turn over these facts, whose scripts may have a host of another kind; `async with` it."""
        return Turn(
            facts,
            self._sandbox,
            host_for or self._host_for,
            limits=self._limits,
            times=self._times,
            read=self._shelf.template,
        )


class Composer:
    """Makes system prompts out of personas and modules."""

    def __init__(
        self, *, reader: TurnReader, turns: Turns, store: TurnStore, traces: RunTraceStore, tokens: TokenCounter
    ) -> None:
        self._traces = traces
        self._reader = reader
        self._turns = turns
        self._store = store
        self._tokens = tokens

    async def compose(self, run: ActiveRun, casting: Casting) -> Prompt:
        """The system prompt of a run, showing its two stages as they go.

        What the modules leave is stored beside what follows, and before anything of the reply is shown. A module that
        fails contributes what it said last, or nothing: never an error. Raises `PromptTooLarge`.
        """
        facts = await self._reader.facts(run.record, casting, casting.template)
        async with self._turns.turn(facts) as turn:
            try:
                planned = planned_for(turn, casting.template)
                built = await build_in_stages(turn, planned, run.emit)
            finally:
                run.spend(turn.usage)  # also if somebody says stop: it has been asked
        if casting.persona is not None or facts.modules:
            run.store(self._keep(run, turn, planned, built))
        return Prompt(built.text, _after(facts, planned))

    async def recall(self, run: ActiveRun, casting: Casting) -> Prompt:
        """The prompt that a run was given before it paused; no module runs for it again. Raises `PromptTooLarge`."""
        facts = await self._reader.facts(run.record, casting, casting.template)
        stored = await self._traces.get(run.record.id, run.record.owner_id)
        async with self._turns.turn(facts) as turn:
            after = _after(facts, planned_for(turn, casting.template))
        return Prompt(stored.prompt if stored else "", after=after)

    async def _keep(self, run: ActiveRun, turn: Turn, planned: Plan, built: Built) -> None:
        record, fence = run.record, run.claimed.lease.fence
        results = results_of(turn)
        trace = await trace_of(turn, planned, built, self._tokens) | {RECIPE: recipe_of(turn, planned)}
        told = NewTrace(built.text, trace)
        await until_answered(lambda: self._write(record, results, fence, told))

    async def _write(self, record: RunRecord, results: list[NewResult], fence: int, trace: NewTrace) -> None:
        # Whoever lost the lease is told so by the journal.
        await self._store.keep(record.id, record.owner_id, results, fence=fence, trace=trace)


def _after(facts: TurnFacts, planned: Plan) -> tuple[str, ...]:
    """Modules that are to run after the reply; whether they speak is decided when it is there."""
    return tuple(name for name in planned.waits_for if waits_for_reply(facts.modules[name]))
