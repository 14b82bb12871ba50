"""Opening and closing the books of runs: what a run's calls come to, however it ends."""

from collections.abc import Sequence

from db.records import ToolCallRecord
from db.stores.tool_calls import ToolCallStore
from services.agent.agent import Tool
from services.conversation.opening import Conversations
from services.runs.active import ActiveRun
from services.runs.draft import Draft
from services.runs.events import RunEvent, ToolDone, ToolStart
from services.runs.retry import until_answered
from services.tools.decisions import Decisions
from services.tools.ledger import CallLedger, LedgerLimits
from services.tools.results import ResultCutter

STOPPED = "[Interrupted: the reply was stopped while this call was under way. Whether it took effect is not known.]"
NOT_MADE = "[Not made: the reply was stopped before. Nothing was done.]"

_PREVIEW_CHARACTERS = 2_000


class CallBooks:
    """The books of this replica's runs."""

    def __init__(
        self,
        store: ToolCallStore,
        conversations: Conversations,
        cutter: ResultCutter,
        decisions: Decisions,
        limits: LedgerLimits,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._cutter = cutter
        self._decisions = decisions
        self._limits = limits

    def open(self, run: ActiveRun, tools: Sequence[Tool], known: Sequence[ToolCallRecord] = ()) -> CallLedger:
        """A book for a run; `known` are the calls from before it paused, and what nobody heard of them is told."""
        for event in untold(run.draft, [call for call in known if call.finished_at is not None]):
            run.emit(event)
        return CallLedger(run, self._store, self._cutter, self._decisions, tools, self._limits, known)

    async def of(self, run: ActiveRun) -> list[ToolCallRecord]:
        """The calls of a run that somebody else has begun."""
        return await self._store.of_run(run.record.session_id, run.record.id)

    async def close(self, run: ActiveRun) -> list[RunEvent]:
        """See to it that every call of the run has an answer, and return what is to be told of those that were open.

        What was under way is never made again: nobody knows whether it took effect, and that is what the model is told.
        """
        calls = await until_answered(lambda: self._store.close(run.claimed, begun=STOPPED, waiting=NOT_MADE))
        if calls is None:
            return []  # the lease is lost: whoever has it now closes the run
        told = {call.id: call.told or "" for call in calls}
        await self._conversations.answer(run, told, otherwise=NOT_MADE)
        return _closing(run.draft, calls)


def is_paused(calls: Sequence[ToolCallRecord]) -> bool:
    """Whether a run that its owner has left only waited for somebody's word: then it can go on."""
    unfinished = [call for call in calls if call.finished_at is None]
    return bool(unfinished) and all(call.state != "running" for call in unfinished)


def untold(draft: Draft, calls: Sequence[ToolCallRecord]) -> list[RunEvent]:
    """What is still to be told of calls that have ended: their owner may have died before anybody heard of it."""
    shown, open_calls = set(draft.tool_calls), set(draft.open_tool_calls)
    events: list[RunEvent] = []
    for call in calls:
        is_new = call.id not in shown and call.started_at is not None
        if is_new:
            events.append(ToolStart(call.id, call.name, call.server, call.arguments))
        if call.finished_at is not None and (is_new or call.id in open_calls):
            events.append(_done(call))
    return events


def _closing(draft: Draft, calls: Sequence[ToolCallRecord]) -> list[RunEvent]:
    """What ends the calls that are open, and those of which nobody was told."""
    known = {call.id for call in calls}
    never_begun = [id for id in draft.open_tool_calls if id not in known]
    return [*untold(draft, calls), *(ToolDone(id, "interrupted", "", False, 0) for id in never_begun)]


def _done(call: ToolCallRecord) -> ToolDone:
    match call.state:
        case "completed" | "failed" | "rejected" as status:
            preview = (call.told or "")[:_PREVIEW_CHARACTERS]
            return ToolDone(call.id, status, preview, len(preview) < len(call.told or ""), _milliseconds(call))
        case _:
            return ToolDone(call.id, "interrupted", "", False, _milliseconds(call))


def _milliseconds(call: ToolCallRecord) -> int:
    if call.started_at is None or call.finished_at is None:
        return 0
    return round((call.finished_at - call.started_at).total_seconds() * 1000)
