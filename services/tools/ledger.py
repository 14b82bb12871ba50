"""The calls of a run, written down before and after each is made: it acts at most once, whatever dies meanwhile."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from db.records import ToolCallRecord
from db.stores.tool_calls import NewCall, ToolCallStore
from services.agent.agent import Answer, Tool
from services.agent.calls import CallStatus, Refused
from services.agent.planning import Ready
from services.agent.types import ToolCall
from services.errors import LeaseLost
from services.runs.active import ActiveRun
from services.runs.events import ApprovalRequired
from services.runs.retry import until_answered
from services.tools.decisions import Decisions
from services.tools.results import ResultCutter

_LOOK_SECONDS = 8.0
"""Between two looks at whether somebody has decided: a wake-up may get lost."""

REFUSED = "The user did not want this call to be made. Nothing was done."
EXPIRED = "Nobody said in time whether this call may be made. Nothing was done."


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """Numbers of the operator."""

    result_characters: int
    approval_seconds: float


class CallLedger:
    """The book of one run's calls. What was `known` before the run paused is not done again."""

    def __init__(
        self,
        run: ActiveRun,
        store: ToolCallStore,
        cutter: ResultCutter,
        decisions: Decisions,
        tools: Sequence[Tool],
        limits: LedgerLimits,
        known: Sequence[ToolCallRecord] = (),
    ) -> None:
        self._run = run
        self._store = store
        self._cutter = cutter
        self._decisions = decisions
        self._tools = {tool.spec.name: tool for tool in tools}
        self._limits = limits
        self._known = {record.id: record for record in known}
        self._changed: dict[str, str] = {}

    def told(self, call: ToolCall) -> str | None:
        """What the model is told of a call that ended before the run paused."""
        known = self._known.get(call.id)
        return None if known is None or known.finished_at is None else known.told or ""

    async def agree(self, ready: Ready) -> Ready | Refused:
        """The call as it may be made, after somebody's word where one is needed; meanwhile the run's clock stands."""
        record = self._known.get(ready.call.id)
        if record is None:
            if ready.tool.approval == "auto":
                return ready
            record = await self._asked(ready)
        self._show(ready, record)
        with self._run.clock.paused():
            record = await self._decided(record)
        if record.state == "rejected":
            return Refused(record.reason or REFUSED)
        return self._as_agreed(ready, record)

    async def begin(self, ready: Ready) -> None:
        """Write down that the call is about to be made. Raises `LeaseLost`, and the run is lost."""
        call = self._new(ready.call)
        self._insist(await until_answered(lambda: self._store.begin(self._run.claimed, call)))

    async def end(self, call: ToolCall, status: CallStatus, answer: Answer, ms: int) -> str:
        """Keep the whole answer, and return as much of it as fits. Raises `LeaseLost`, and the run is lost."""
        whole = answer.text[: self._limits.result_characters]
        told = await self._cutter.cut(whole, call.id)
        if call.id in self._changed:
            told = f"[The user changed the arguments to {self._changed[call.id]}]\n{told}"
        new = self._new(call)
        self._insist(
            await until_answered(lambda: self._store.end(self._run.claimed, new, status, result=whole, told=told))
        )
        return told

    async def _asked(self, ready: Ready) -> ToolCallRecord:
        new = self._new(ready.call)
        parameters = _storable(ready.tool.spec.parameters)
        record = await until_answered(
            lambda: self._store.ask(
                self._run.claimed,
                new,
                reason=ready.tool.reason,
                parameters=parameters,
                seconds=self._limits.approval_seconds,
            )
        )
        self._insist(record is not None)
        assert record is not None
        return record

    def _show(self, ready: Ready, record: ToolCallRecord) -> None:
        if record.id in self._run.draft.open_tool_calls:
            return  # it was shown before the run paused
        expires_at = record.expires_at or record.created_at
        self._run.emit(
            ApprovalRequired(
                record.id,
                record.name,
                record.server,
                ready.call.arguments,
                record.reason or "",
                expires_at.isoformat(timespec="seconds"),
            )
        )

    async def _decided(self, record: ToolCallRecord) -> ToolCallRecord:
        """The record once it does not wait any more."""
        run_id = self._run.record.id
        try:
            while record.state == "waiting":
                news = self._decisions.news(run_id)
                record = await self._reread(record)
                if record.state != "waiting":
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(_LOOK_SECONDS, max(_left(record), 0.01))):
                        await asyncio.shield(news)
        finally:
            if self._run.clock.waiting == 1:
                self._decisions.forget(run_id)
        return record

    async def _reread(self, record: ToolCallRecord) -> ToolCallRecord:
        run = self._run.record
        if _left(record) <= 0:
            found = await until_answered(lambda: self._store.expire(run.session_id, run.id, record.id, reason=EXPIRED))
        else:
            calls = await until_answered(lambda: self._store.of_run(run.session_id, run.id))
            found = next((call for call in calls if call.id == record.id), None)
        self._insist(found is not None)  # the session was deleted
        assert found is not None
        return found

    def _as_agreed(self, ready: Ready, record: ToolCallRecord) -> Ready:
        if record.arguments == ready.call.arguments:
            return ready
        self._changed[record.id] = record.arguments
        arguments: Mapping[str, Any] = orjson.loads(record.arguments)
        return replace(ready, call=replace(ready.call, arguments=record.arguments), arguments=arguments)

    def _new(self, call: ToolCall) -> NewCall:
        tool = self._tools.get(call.name)
        server, name_there = (None, call.name) if tool is None else (tool.server, tool.name_there or call.name)
        return NewCall(call.id, call.name, server, name_there, call.arguments)

    def _insist(self, held: bool) -> None:
        if not held:
            self._run.lose()
            raise LeaseLost


def _left(record: ToolCallRecord) -> float:
    """Seconds until nobody can agree any more."""
    if record.expires_at is None:
        return 0.0
    return (record.expires_at - datetime.now(UTC)).total_seconds()


def _storable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as PostgreSQL takes it, which knows no NUL."""
    text = orjson.dumps(dict(parameters), default=dict).decode()
    return orjson.loads(text.replace("\\u0000", ""))
