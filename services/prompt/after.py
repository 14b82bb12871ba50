"""Stages 4 and 5: what modules do once the reply is there, for the turns to come."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from db.records import RunRecord
from db.stores.messages import MessageStore
from db.stores.run_traces import RunTraceStore
from db.stores.turns import TurnStore
from services.casting import CastingOffice
from services.context.tokens import TokenCounter
from services.prompt.composer import Turns
from services.prompt.facts import TurnReader
from services.prompt.leaving import entry_of, results_of, text_of
from services.prompt.planning import Plan
from services.prompt.stages import after_the_reply, ended, planned_for, speak_all, status_of
from services.prompt.turn import Turn
from services.runs.active import ActiveRun
from services.runs.afterwork import PostWork
from services.runs.events import StageUpdate


class AfterReply:
    """Runs the modules that a persona asks for after its replies."""

    def __init__(
        self,
        casting: CastingOffice,
        *,
        reader: TurnReader,
        turns: Turns,
        store: TurnStore,
        messages: MessageStore,
        traces: RunTraceStore,
        tokens: TokenCounter,
    ) -> None:
        self._casting = casting
        self._reader = reader
        self._turns = turns
        self._store = store
        self._messages = messages
        self._traces = traces
        self._tokens = tokens

    def wants(self, run: ActiveRun) -> bool:
        """Whether the prompt of the run named modules that wait for its reply."""
        return bool(run.after)

    async def respond(self, work: PostWork) -> Sequence[Mapping[str, Any]]:
        """Let them speak, first those that need no model; what they say is read by the next turn.

        Doing it again is doing it once: what a module has given for this run is not asked of it again.
        """
        record = work.record
        casting = await self._casting.cast(record)
        facts = await self._reader.facts(record, casting, casting.template, reply=await self._reply_to(record))
        async with self._turns.turn(facts) as turn:
            turn.prompt = await self._prompt_of(record)
            planned = planned_for(turn, casting.template)
            stored: set[str] = set()
            in_fourth, in_fifth = after_the_reply(turn, planned)
            try:
                await self._stage(work, 4, turn, planned, in_fourth, stored)
                await self._stage(work, 5, turn, planned, in_fifth, stored)
            finally:
                work.spend(turn.usage)
            said = turn.finished()
        return [status_of(name, said[name]) for name in (*in_fourth, *in_fifth)]

    async def _stage(
        self, work: PostWork, stage: int, turn: Turn, planned: Plan, names: Sequence[str], stored: set[str]
    ) -> None:
        work.emit(StageUpdate.began(stage))
        turn.usage = None
        await speak_all(turn, planned, names)
        await self._keep(work, turn, names, stored, f"stage {stage}")
        work.emit(ended(turn, stage, names))

    async def _keep(self, work: PostWork, turn: Turn, names: Sequence[str], stored: set[str], stage: str) -> None:
        """Store what the stage gave, also of modules that its scripts ran, and nothing twice."""
        record = work.record
        results = results_of(turn, besides=stored)
        told = {name: await self._entry(turn, name) for name in names}
        if not told and not results:
            return
        kept = await self._store.keep(
            record.id,
            record.owner_id,
            results,
            fence=work.claimed.fence,
            after=told,
            usage=turn.usage and {stage: asdict(turn.usage)},
        )
        if not kept:
            work.lose()  # somebody else does it by now
        stored.update(name for name, said in turn.finished().items() if said.ran)

    async def _entry(self, turn: Turn, name: str) -> Mapping[str, Any]:
        text = text_of(turn, name) or ""
        return await entry_of(turn.facts.modules[name], turn.finished()[name], text, self._tokens)

    async def _reply_to(self, record: RunRecord) -> str:
        if record.reply_message_id is None:
            return ""
        message = await self._messages.get(record.reply_message_id, record.owner_id)
        return message.content if message else ""

    async def _prompt_of(self, record: RunRecord) -> str:
        trace = await self._traces.get(record.id, record.owner_id)
        return trace.prompt if trace else ""
