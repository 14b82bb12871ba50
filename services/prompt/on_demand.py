"""Modules that a model calls for while it answers."""

from collections.abc import Sequence

from db.records import ModuleRecord, RunRecord
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.turns import TurnStore
from services.casting import Casting
from services.prompt.composer import Turns
from services.prompt.expansion import PromptTooLarge
from services.prompt.facts import TurnReader
from services.prompt.leaving import results_of
from services.runs.active import ActiveRun
from services.runs.retry import until_answered


class OnDemand:
    """Lets ON_DEMAND modules speak, each script once in a turn."""

    def __init__(
        self, *, reader: TurnReader, turns: Turns, store: TurnStore, modules: ModuleStore, traces: RunTraceStore
    ) -> None:
        self._reader = reader
        self._turns = turns
        self._store = store
        self._modules = modules
        self._traces = traces

    async def offered(self, record: RunRecord, casting: Casting) -> Sequence[ModuleRecord]:
        """The active modules of this kind that are attached to the persona, in their order."""
        ids = casting.persona.module_ids if casting.persona else []
        if not ids:
            return ()
        found = {module.id: module for module in await self._modules.get_by_names(record.owner_id, (), ids=ids)}
        modules = [found[id] for id in ids if id in found]
        return [module for module in modules if module.execution_context == "ON_DEMAND" and module.is_active]

    async def run(self, run: ActiveRun, casting: Casting, name: str) -> str | None:
        """What the module says; None if it failed. A script that has run in this turn is not run again."""
        record = run.record
        await run.stored()  # what the prompt's modules have given counts here
        facts = await self._reader.facts(record, casting, f"@{{{name}}}")
        if name not in facts.modules:
            return None
        async with self._turns.turn(facts) as turn:
            trace = await self._traces.get(record.id, record.owner_id)
            turn.prompt = trace.prompt if trace else ""
            try:
                text = await turn.render(name)
            except PromptTooLarge:
                return None
            said, results = turn.finished()[name], results_of(turn)
            run.spend(turn.usage)
        fence = run.claimed.lease.fence
        await until_answered(lambda: self._store.keep(record.id, record.owner_id, results, fence=fence))
        return text if said.state in ("spoke", "silent") else None
