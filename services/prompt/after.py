"""Stages 4 and 5: what modules do once the reply is there, for the turns to come."""

from collections.abc import Mapping, Sequence
from typing import Any

from db.records import RunRecord
from db.stores.messages import MessageStore
from db.stores.module_results import ModuleResultStore
from db.stores.run_traces import RunTraceStore
from db.stores.variables import VariableStore
from services.casting import CastingOffice
from services.prompt.composer import Composer, keep, planned_for, speak_all, status_of
from services.prompt.planning import Plan
from services.prompt.turn import Turn
from services.runs.active import ActiveRun
from services.runs.afterwork import PostWork
from services.runs.events import StageUpdate


class AfterReply:
    """Runs the modules that a persona asks for after its replies."""

    def __init__(
        self,
        composer: Composer,
        casting: CastingOffice,
        *,
        messages: MessageStore,
        results: ModuleResultStore,
        variables: VariableStore,
        traces: RunTraceStore,
    ) -> None:
        self._composer = composer
        self._casting = casting
        self._messages = messages
        self._results = results
        self._variables = variables
        self._traces = traces

    def wants(self, run: ActiveRun) -> bool:
        """Whether the prompt of the run named modules that wait for its reply."""
        return bool(run.after)

    async def respond(self, work: PostWork) -> Sequence[Mapping[str, Any]]:
        """Let them speak, first those that need no model; what they say is read by the next turn.

        Doing it again is doing it once: what a module has given for this run is not asked of it again.
        """
        casting = await self._casting.cast(work.record)
        facts = await self._composer.facts(
            work.record, casting, casting.template, reply=await self._reply_to(work.record)
        )
        async with self._composer.turn(facts) as turn:
            turn.prompt = await self._prompt_of(work.record)
            planned = planned_for(turn, casting.template)
            names = [name for name in planned.waits_for if _is_due(turn, name)]
            await self._stage(work, 4, turn, planned, [n for n in names if not facts.modules[n].requires_ai])
            await self._stage(work, 5, turn, planned, [n for n in names if facts.modules[n].requires_ai])
            said = turn.finished()
        return [status_of(name, said[name]) for name in names]

    async def _stage(self, work: PostWork, stage: int, turn: Turn, planned: Plan, names: Sequence[str]) -> None:
        work.emit(StageUpdate.began(stage))
        await speak_all(turn, planned, names)
        await keep(turn, self._results, self._variables, only=names)
        said = turn.finished()
        work.emit(StageUpdate.ended(stage, tuple(status_of(name, said[name]) for name in names)))

    async def _reply_to(self, record: RunRecord) -> str:
        if record.reply_message_id is None:
            return ""
        message = await self._messages.get(record.reply_message_id, record.owner_id)
        return message.content if message else ""

    async def _prompt_of(self, record: RunRecord) -> str:
        trace = await self._traces.get(record.id, record.owner_id)
        return trace.prompt if trace else ""


def _is_due(turn: Turn, name: str) -> bool:
    module = turn.facts.modules[name]
    return module.execution_context == "POST_RESPONSE" and module.is_active
