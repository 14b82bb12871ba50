"""The chat: a message comes in, a reply goes out, and nothing that was shown is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from db.ids import RunId, SessionId, UserId, new_id
from db.records import RunRecord, ToolCallRecord
from db.stores.accepting import Accepted
from db.stores.events import EventStore
from db.stores.runs import Ending, NewReply, RunStore
from services.agent.agent import Agent, Tool
from services.agent.runner import Runner, RunnerResult
from services.casting import Casting, CastingOffice
from services.context.tokens import TokenCounter
from services.conversation.opening import Conversations
from services.conversation.running import RunConversation
from services.ending import Outcome, in_our_words, last_events, usage_counts
from services.errors import (
    NotFound,
    NothingRunning,
    no_session,
)
from services.inbox import Inbox, Send
from services.prompt.composer import Composer, Prompt
from services.questions import Regenerate
from services.runs.active import ActiveRun
from services.runs.afterwork import Afterwork
from services.runs.draft import Draft
from services.runs.engine import RunEngine
from services.runs.events import (
    AssistantStart,
    MessageAccepted,
    encode,
    frame_text,
    timestamp,
)
from services.runs.feed import Feeds, Frame, Reader
from services.runs.retry import until_answered
from services.runs.tasks import whatever_happens
from services.telemetry.meters import ModelMeter
from services.tools.books import CallBooks, is_paused
from services.tools.toolbox import Toolbox
from services.usage.counting import spent_by

_log = logging.getLogger(__name__)

_LOOKS = 4
"""How often a session is looked for before whoever asks for it is told to come back later: a quarter of a second."""


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """Numbers of the operator."""

    run_seconds: float
    max_turns: int
    calls_at_once: int
    calls_per_turn: int
    calls_per_run: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A reader at its position. `resync` says why the past that was asked for cannot be replayed."""

    reader: Reader
    newest: int
    position: int
    active_run: RunId | None
    replayed_from: int | None
    resync: str | None


class ChatService:
    """Takes messages, performs their runs, and lets readers attach."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        casting: CastingOffice,
        composer: Composer,
        toolbox: Toolbox,
        books: CallBooks,
        conversations: Conversations,
        runs: RunStore,
        events: EventStore,
        feeds: Feeds,
        engine: RunEngine,
        afterwork: Afterwork,
        tokens: TokenCounter,
        meter: ModelMeter,
        limits: ChatLimits,
        epoch: UUID,
    ) -> None:
        self.epoch = epoch
        self._inbox = inbox
        self._casting = casting
        self._composer = composer
        self._toolbox = toolbox
        self._books = books
        self._conversations = conversations
        self._runs = runs
        self._events = events
        self._feeds = feeds
        self._engine = engine
        self._afterwork = afterwork
        self._tokens = tokens
        self._meter = meter
        self._limits = limits

    # --- one message, top to bottom --------------------------------------------------------------------------------

    async def send(self, owner_id: UserId, session_id: SessionId, send: Send | Regenerate) -> Accepted:
        """Store the user's words and see to it that they are answered; or that old ones are answered once more.

        The answer is read from the journal. The same `client_message_id` with the same words gives the run that
        it gave before. Raises `InvalidRequest`, `UnknownControl`, `InvalidControl`, `UnknownProvider`, `NotFound`,
        `Conflict`, `SessionBusy`, `TooManyRequests`, `ShuttingDown`.
        """
        accepted = await self._inbox.take(owner_id, session_id, send)
        if accepted.claimed is not None:
            self._engine.launch(accepted.claimed)
        elif accepted.busy is not None and send.when_busy == "interrupt":
            await self._engine.interrupt_for_message(accepted.busy)
        return accepted

    async def checked(self, owner_id: UserId, send: Send) -> Send:
        """`send` in the form in which it is stored. Raises what `send` raises of the request itself."""
        return await self._inbox.checked(owner_id, send)

    async def perform(self, run: ActiveRun) -> None:
        """Answer the user's message; every way out of the work leads through the closing of the reply."""
        await self._see_through(run, self._work(run))

    async def _work(self, run: ActiveRun) -> Outcome:
        if not run.is_announced:
            run.emit(MessageAccepted(run.record.user_message_id, run.record.client_message_id, queued=False))
        casting = await self._casting.cast(run.record)
        async with asyncio.TaskGroup() as group:
            tools = group.create_task(self._toolbox.open(run, casting))
            prompt = await self._composer.compose(run, casting)
        return await self._answer(run, casting, prompt, tools.result())

    async def _answer(
        self,
        run: ActiveRun,
        casting: Casting,
        prompt: Prompt,
        tools: tuple[Tool, ...],
        known: Sequence[ToolCallRecord] = (),
    ) -> Outcome:
        run.after = prompt.after
        run.is_untitled = casting.is_untitled
        specs = [tool.spec for tool in tools]
        conversation = await self._conversations.open(run, casting, prompt.text, specs)
        result = await self._reply(run, casting, prompt.text, tools, conversation, known)
        return Outcome(result.reason, run.usage)

    async def _see_through(self, run: ActiveRun, work: Coroutine[Any, Any, Outcome]) -> None:
        try:
            async with asyncio.timeout(self._limits.run_seconds) as limit:
                run.clock.start(limit)
                outcome = await work
        except asyncio.CancelledError:
            outcome = Outcome("interrupted", run.usage)
        except Exception as error:  # noqa: BLE001 - the border of the run's task
            # What breaks while the work is being stopped is part of stopping it.
            stopped = Outcome("interrupted", run.usage)
            outcome = stopped if run.interrupt else Outcome("error", run.usage, error=in_our_words(error))
        if not run.is_lost:
            await self._close(run, outcome)

    async def recover(self, run: ActiveRun) -> None:
        """Close a run whose owner died: what it had shown is its reply. One that only waited for a word goes on."""
        record = run.record
        events = await self._events.of_run(record.session_id, record.id, record.first_seq)
        run.is_announced = run.is_announced or bool(events)
        if len(events) <= 1 and record.interrupt_by is None:
            await self.perform(run)  # its owner died before it had begun: nothing was shown, so nothing is lost
            return
        run.restore(Draft.of(events))
        calls = await self._books.of(run) if run.draft.message_id is not None else []
        if record.interrupt_by is None and is_paused(calls):
            await self._see_through(run, self._go_on(run, calls))
            return
        await self._conversations.resume(run)
        run.stop_recovered()
        await self._close(run, Outcome("interrupted", run.usage))

    async def _go_on(self, run: ActiveRun, calls: Sequence[ToolCallRecord]) -> Outcome:
        casting = await self._casting.cast(run.record)
        prompt = await self._composer.recall(run, casting)
        return await self._answer(run, casting, prompt, await self._toolbox.open(run, casting), calls)

    # --- 4. run the agent ------------------------------------------------------------------------------------------

    async def _reply(
        self,
        run: ActiveRun,
        casting: Casting,
        prompt: str,
        tools: tuple[Tool, ...],
        conversation: RunConversation,
        known: Sequence[ToolCallRecord],
    ) -> RunnerResult:
        """Ask the model and show its answer as it comes; with calls that are `known`, go on after a pause."""
        if run.draft.message_id is None:
            run.emit(AssistantStart(new_id(), casting.persona_id, casting.provider.name, casting.model))
            run.phase = "waiting"
        limits = self._limits
        agent = Agent(
            casting.model,
            prompt,
            casting.controls,
            tools,
            max_turns=limits.max_turns,
            max_calls_at_once=limits.calls_at_once,
            max_calls_per_turn=limits.calls_per_turn,
            max_calls=limits.calls_per_run,
        )
        book = self._books.open(run, tools, known)
        unanswered = conversation.unanswered if known else ()
        return await Runner(casting.provider, self._meter).run(agent, conversation, run, book, unanswered=unanswered)

    # --- 5. close the reply, 6. what comes after it ----------------------------------------------------------------

    async def _close(self, run: ActiveRun, outcome: Outcome) -> None:
        """Write the reply and the last events in one transaction: on success, error and interrupt alike.

        What is to be done after a good reply is begun as soon as that is written, and delays nothing.
        """
        run.is_closing = True
        await whatever_happens(self._end(run, outcome))

    async def _end(self, run: ActiveRun, outcome: Outcome) -> None:
        phase = run.phase
        closed = await self._books.close(run) if run.in_context is not None and not outcome.is_good else []
        run.phase = phase
        run.reply_tokens = await self._tokens.count(run.draft.text)
        post_response = outcome.is_good and self._afterwork.wants(run)
        events = last_events(run, outcome, closed, post_response=post_response)
        at = timestamp()
        usage = usage_counts(outcome.usage)
        ending = Ending(
            [encode(event, run.record.id, at) for event in events],
            await self._reply_of(run),
            outcome.finish_reason,
            outcome.error and {"code": outcome.error.code, "message": outcome.error.message},
            dict(usage),
            run.timings(),
            post_response,
            self._afterwork.jobs_after(run) if outcome.is_good else (),
            run.context and asdict(run.context),
            spent_by(run, outcome),
        )
        await self._engine.close(run, ending)

    async def _reply_of(self, run: ActiveRun) -> NewReply | None:
        draft, text = run.draft, run.draft.text
        if draft.message_id is None:
            return None
        rest = None
        if run.in_context is not None:
            unsaid = text[run.in_context :]
            rest = await self._tokens.count_message(unsaid) if unsaid.strip() else 0
        return NewReply(
            draft.message_id,
            text,
            draft.parts,
            run.reply_tokens,
            draft.provider,
            draft.model,
            context_rest=rest,
            stopped_by=run.interrupt and run.interrupt.by,
        )

    # --- stopping and reading --------------------------------------------------------------------------------------

    async def interrupt(self, owner_id: UserId, session_id: SessionId, run_id: RunId | None, by: str = "user") -> RunId:
        """Stop a run, the active one if none is named; if its reply is closed, the work after that.

        Raises `NotFound` and `NothingRunning`.
        """
        # A run that is performed here is stopped without asking the database, which may be away.
        if here := self._engine.stop(owner_id, session_id, run_id, by):
            return here
        if run_id is None:
            active = await self._runs.active(session_id, owner_id)
            run_id = active.id if active else await self._afterwork.newest(session_id, owner_id)
            if run_id is None:
                raise NothingRunning(session_id=str(session_id))
        elif await self._runs.get(run_id, session_id, owner_id) is None:
            raise NotFound("There is no run with that id in this session.", field="run_id")
        if not await self._engine.interrupt(session_id, run_id, by):
            raise NothingRunning("That run has already ended.", run_id=str(run_id))
        return run_id

    async def session_of(self, owner_id: UserId, run_id: RunId) -> SessionId | None:
        """The session of the owner's run."""
        return await self._runs.session_of(run_id, owner_id)

    async def replay(self, run: RunRecord) -> list[Frame]:
        """What happened in a run until now, without the deltas."""
        events = await self._events.of_run(run.session_id, run.id, run.first_seq)
        return [
            Frame(event.seq, event.type, event.run_id, frame_text(event.type, event.seq, event.body))
            for event in events
            if not event.type.endswith("_delta")
        ]

    @asynccontextmanager
    async def attach(
        self, owner_id: UserId, session_id: SessionId, *, after: int | None = None, epoch: UUID | None = None
    ) -> AsyncGenerator[Attachment, None]:
        """Read a session's events from a position on: those of the past first, then each as it is committed.

        Without `after` that is from now on, or from the beginning of the run that is active. A past that is gone
        is said in `resync`. Raises `NotFound`.
        """
        async with self._feeds.reader(session_id) as reader:
            # After a short fault of the database the first connections that the pool has may be dead ones.
            head = await until_answered(lambda: self._events.head(session_id, owner_id), attempts=_LOOKS)
            if head is None:
                raise no_session()
            live = head.last_seq if head.active_first_seq is None else head.active_first_seq - 1
            resync = _why_gone(after, epoch, self.epoch, head.last_seq, head.kept_after)
            position = live if after is None or resync else max(after, head.kept_after)
            reader.position = position
            self._feeds.advance(session_id, head.last_seq)
            replayed_from = None if after is None or resync else position
            yield Attachment(reader, head.last_seq, position, head.active_run_id, replayed_from, resync)


def _why_gone(after: int | None, epoch: UUID | None, ours: UUID, newest: int, kept_after: int) -> str | None:
    if after is None:
        return None
    if epoch is not None and epoch != ours:
        return "foreign_epoch"
    if after > newest:
        return "position_unknown"
    # Position 0 asks for all that is kept, which is not a hole.
    return "past_is_gone" if 0 < after < kept_after else None
