"""A run while it is being performed here."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from db.ids import MessageId
from db.records import RunRecord
from db.stores.leases import Claimed
from services.agent.types import Usage, total
from services.errors import ReplyTooLong
from services.runs.clock import RunClock
from services.runs.draft import Draft
from services.runs.events import (
    ApprovalRequired,
    AssistantStart,
    ContextUsage,
    Phase,
    RefusalDelta,
    RunEvent,
    StageUpdate,
    TextDelta,
    ThinkingDelta,
    ToolDone,
    ToolStart,
)
from services.runs.journal import RunLog
from services.telemetry.meters import RunMeter

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody's word that the run should stop; `at` is monotonic seconds."""

    by: str
    at: float


class ActiveRun:
    """What a performer works with: where its events go, and whether it was told to stop."""

    def __init__(self, claimed: Claimed, meter: RunMeter, *, reply_bytes: int) -> None:
        self.claimed = claimed
        self._meter = meter
        self._stages = meter.stages()
        self.is_announced = claimed.run.handed_to is None
        """Whether readers know it by its own id."""
        self.draft = Draft()
        self.phase: Phase = "composing"
        self.interrupt: Interrupt | None = None
        self.is_lost = False
        self.is_closing = False
        self.started_at = time.monotonic()
        self.first_delta_at: float | None = None
        self.after: tuple[str, ...] = ()
        """The modules that wait for the reply."""
        self.is_untitled = False
        """Whether the session waits for a title."""
        self.in_context: int | None = None
        """How many characters of the reply's text stand in the context as items; None: it has no items."""
        self.clock = RunClock()
        self.answered = _known(claimed.run.usage)
        """What the model's server has counted of the reply's calls; whoever had it before has left what it was."""
        self.unmeasured = 0
        """Tokens that the model was given and its server has not told of (yet)."""
        self.spent: Usage | None = None
        """What was asked of models beside the reply itself."""
        self.context: ContextUsage | None = None
        """How full the model's window was before the reply."""
        self.reply_tokens = 0
        """What the reply has added to it, once it is over."""
        self._reply_bytes = reply_bytes
        self._log: RunLog | None = None
        self._task: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[None] | None = None
        self._has_begun = False
        self._asked = 0

    @property
    def record(self) -> RunRecord:
        """The run as it was accepted."""
        return self.claimed.run

    def answers(self, message_id: MessageId) -> None:
        """Note that the reply stands behind that message now, which the run has taken."""
        self.claimed = replace(self.claimed, run=replace(self.claimed.run, user_message_id=message_id))

    def attach(self, log: RunLog, task: asyncio.Task[None]) -> None:
        """For the engine: where events go, and the task that works."""
        self._log, self._task = log, task

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that works."""
        return self._task

    def begin(self) -> None:
        """For the engine: the task's first step. A task that is cancelled before it could not close its run."""
        self._has_begun = True
        if self._task is not None and (self.interrupt or self.is_lost):
            self._task.cancel()

    def emit(self, event: RunEvent) -> None:
        """Show an event; raises `ReplyTooLong`. Does not wait: call `room` now and then."""
        self.draft.add(event)
        self.log.append(event)
        if isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
            if self.first_delta_at is None:
                self.phase = "streaming"
                self.first_delta_at = time.monotonic()
        else:
            self._measure(event)
        if self.draft.size > self._reply_bytes:
            raise ReplyTooLong(limit=self._reply_bytes)

    def _measure(self, event: RunEvent) -> None:
        match event:
            case ToolStart() | ApprovalRequired():
                self.phase = self._phase_of_the_reply()
            case ToolDone(status=status, ms=ms):
                self.phase = self._phase_of_the_reply()
                self._meter.tool_call(status, ms)
            case StageUpdate(stage=stage, status=status):
                self._stages.note(stage, status)
            case AssistantStart():
                self._stages.note(3, "started")
            case _:
                pass

    def show_context(self, usage: ContextUsage) -> None:
        """Show how full the model's window is, and remember it."""
        self.context = usage
        self.emit(usage)

    @property
    def is_crowded(self) -> bool:
        """Whether so much has been said that room is to be made for what is to come."""
        return self.context is not None and self.context.tokens + self.reply_tokens > self.context.threshold

    def store(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside what follows. Until it is done nothing that was emitted is shown, nor the run closed."""
        self._storing = asyncio.create_task(_logged(work), name=f"storing for run {self.record.id}")
        self.log.hold(self._storing)

    async def stored(self) -> None:
        """Wait until that work is done."""
        if self._storing is not None:
            await asyncio.wait([self._storing])

    async def end(self) -> None:
        """For the engine: the run is over, and with it all that was done for it."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.wait([self._storing])

    @property
    def is_full(self) -> bool:
        """Whether to wait in `room` before more is emitted."""
        return self.log.is_full

    async def room(self) -> None:
        """Wait until the journal has caught up."""
        await self.log.room()

    @property
    def usage(self) -> Usage | None:
        """All that servers have counted for this run."""
        return total(self.answered, self.spent)

    def ask(self, tokens: int) -> None:
        """Note that the model is given so many tokens."""
        self.unmeasured += tokens
        self._asked = tokens

    def count(self, usage: Usage) -> None:
        """Count what the model's server has told of the newest call."""
        self.unmeasured -= self._asked
        self._asked = 0
        self.answered = total(self.answered, usage)

    def spend(self, usage: Usage | None) -> None:
        """Count what was asked of a model on the side."""
        self.spent = total(self.spent, usage)

    @property
    def is_paused(self) -> bool:
        """Whether nothing is under way but waiting for somebody's word on calls of tools."""
        return 0 < self.clock.waiting == len(self.draft.open_tool_calls)

    @property
    def log(self) -> RunLog:
        """Where the events go."""
        assert self._log is not None, "the run has not begun"
        return self._log

    def stop(self, by: str) -> bool:
        """Interrupt the work; False if the run is ending anyway."""
        if self.is_closing or self.interrupt is not None:
            return False
        self.interrupt = Interrupt(by, time.monotonic())
        self._cancel()
        return True

    def lose(self) -> None:
        """Stop working without a word: another replica owns the session now, or is to go on."""
        self.is_lost = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and self._has_begun and not self.is_closing:
            self._task.cancel()

    def stop_recovered(self) -> None:
        """Note that the run's owner died."""
        self.interrupt = self.interrupt or Interrupt("recovery", time.monotonic())

    def restore(self, draft: Draft) -> None:
        """Take the reply as far as somebody else has shown it."""
        self.draft = draft
        if draft.message_id is not None:
            self.phase = self._phase_of_the_reply()

    def _phase_of_the_reply(self) -> Phase:
        if self.draft.open_tool_calls:
            return "tool"
        return "streaming" if self.draft.has_spoken else "waiting"

    def interrupt_ms(self) -> int:
        """Milliseconds since somebody said stop."""
        return 0 if self.interrupt is None else round((time.monotonic() - self.interrupt.at) * 1000)

    def ended(self, finish_reason: str, usage: Mapping[str, int | None]) -> None:
        """For the engine: the end of the reply is written."""
        self._stages.note(3, "finished")
        self._meter.ended(finish_reason, self.timings(), usage)

    def timings(self) -> dict[str, int]:
        """Milliseconds from the start of the run to its first delta and to now."""
        timings = {"total_ms": round((time.monotonic() - self.started_at) * 1000)}
        if self.first_delta_at is not None:
            timings["first_delta_ms"] = round((self.first_delta_at - self.started_at) * 1000)
        return timings


def _known(usage: Mapping[str, int | None] | None) -> Usage | None:
    if usage is None or usage.get("input_tokens") is None:
        return None
    return Usage(*(usage.get(name) or 0 for name in ("input_tokens", "output_tokens", "thinking_tokens")))


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """What cannot be stored beside a reply must not cost the reply."""
    try:
        await work
    except Exception:  # noqa: BLE001 - the border of a task that nobody asks for its error
        _log.exception("what led to a reply could not be stored")
