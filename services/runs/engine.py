"""Owns the runs of this replica: starts them, stops them, keeps their leases, takes over what others left."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol
from uuid import UUID

from db.errors import DatabaseError
from db.ids import ReplicaId, RunId, SessionId, UserId
from db.pool import Database
from db.records import RunRecord
from db.stores.events import EventStore
from db.stores.leases import Claimed, LeaseStore
from db.stores.replicas import ReplicaStore
from db.stores.runs import Ended, Ending, RunStore
from services.runs.active import ActiveRun
from services.runs.afterwork import Afterwork
from services.runs.draft import Draft
from services.runs.events import NO_USAGE, AssistantEnd, Interrupted, RunEvent, SessionUpdated, encode, timestamp
from services.runs.feed import Feeds
from services.runs.journal import Journal
from services.runs.retry import until_answered
from services.runs.tasks import end, until_all_have_ended, whatever_happens
from services.telemetry.circumstances import of_run, under
from services.telemetry.meters import RunMeter
from services.tools.decisions import Decisions

_log = logging.getLogger(__name__)

_TAKEN_AT_ONCE = 20
_PRUNE_SECONDS = 300
_PRUNED_AT_ONCE = 200
_REMEMBERED_INTERRUPTS = 1_000


class Performer(Protocol):
    """What is done in a run. Both methods end with `RunEngine.close` and leave only `CancelledError` behind."""

    async def perform(self, run: ActiveRun) -> None:
        """Answer the user's message."""
        ...

    async def recover(self, run: ActiveRun) -> None:
        """Close a run whose owner died, from what it had shown."""
        ...


class RunEngine:
    """The runs of one replica."""

    def __init__(
        self,
        *,
        database: Database,
        runs: RunStore,
        leases: LeaseStore,
        events: EventStore,
        replicas: ReplicaStore,
        journal: Journal,
        feeds: Feeds,
        afterwork: Afterwork,
        decisions: Decisions,
        meter: RunMeter,
        replica_id: ReplicaId,
        lease_seconds: float,
        retention_seconds: float,
        reply_bytes: int,
        heard: Mapping[str, Callable[[str], None]],
    ) -> None:
        """`heard` are notifications that others want to be told of, by their channels."""
        self.replica_id = replica_id
        self._database = database
        self._runs = runs
        self._leases = leases
        self._events = events
        self._replicas = replicas
        self._journal = journal
        self._feeds = feeds
        self._afterwork = afterwork
        self._decisions = decisions
        self._meter = meter
        self._lease = lease_seconds
        self._retention = retention_seconds
        self._reply_bytes = reply_bytes
        self._heard = heard
        self._active: dict[RunId, ActiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._interrupts: dict[RunId, None] = {}
        self._performer: Performer | None = None
        self._is_listening = False
        self._stop_listening: Callable[[], Awaitable[None]] | None = None
        self._last_failure = -lease_seconds
        self._last_prune = time.monotonic()
        self._work_is_left = asyncio.Event()
        self._hurry = asyncio.Event()
        self.is_draining = False
        self.queued = 0
        """Runs that wait behind others, of all replicas, as of a moment ago."""

    @asynccontextmanager
    async def running(self, performer: Performer, *, is_alone: bool) -> AsyncGenerator[None, None]:
        """Work from here on; on leaving, every task of the engine has ended.

        `is_alone` says that no other replica can be at work on this database: what an earlier process left is
        then taken over at once, without waiting for its leases to run out.
        """
        self._performer = performer
        writers = [asyncio.create_task(self._journal.write()), asyncio.create_task(self._journal.announce())]
        await self._keep_house(at_once=is_alone)
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            self.is_draining = True
            await end([keeper])
            await self._leave_paused()
            await end(list(self._tasks))
            await self._afterwork.leave()
            await end(writers)
            await self._leave()

    async def drain(self, seconds: float) -> None:
        """Begin no new run, and give the running ones time to finish; what is left then is interrupted.

        Runs that wait for somebody's word, those that are queued and the work after replies are left to the other
        replicas, which are told of it; without any, to whoever comes next.
        """
        self.is_draining = True
        self._afterwork.drain()
        await self._leave_paused()
        await until_all_have_ended(self._tasks, seconds, self._hurry)
        await self._leave_paused()
        for run in list(self._active.values()):
            run.stop("shutdown")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._lease)
        await self._afterwork.leave()
        await self._call_others()

    def hurry(self) -> None:
        """Let `drain` wait no longer for what is running."""
        self._hurry.set()

    def launch(self, claimed: Claimed, *, recover: bool = False) -> None:
        """Perform a run that this replica has claimed, in a task of the engine's."""
        run = ActiveRun(claimed, self._meter, reply_bytes=self._reply_bytes)
        task = asyncio.create_task(self._perform(run, recover=recover), name=f"run {run.record.id}")
        run.attach(self._journal.open(claimed, run.lose), task)
        self._active[run.record.id] = run
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(run, task))
        # Somebody may have said stop between the claim and now.
        told = run.record.id in self._interrupts
        self._interrupts.pop(run.record.id, None)
        if (told or run.record.interrupt_by) and not recover:
            run.stop(run.record.interrupt_by or "user")

    async def close(self, run: ActiveRun, ending: Ending) -> Ended | None:
        """Write the end of a run, however often the caller is cancelled meanwhile, and start the next one.

        Returns None if the lease was lost: whoever has it now closes the run.
        """
        run.is_closing = True
        return await whatever_happens(self._close(run, ending))

    async def interrupt(self, session_id: SessionId, run_id: RunId, by: str) -> bool:
        """Stop a run, or the work after its reply, wherever it is performed; False if it has already ended."""
        if run := self._active.get(run_id):
            return run.stop(by)
        record = await self._runs.request_interrupt(session_id, run_id, by)
        if record is None:
            return await self._afterwork.interrupt(session_id, run_id, by)
        if record.state == "queued" and await self._cancel_queued(record, by):
            return True
        await self._runs.notify_interrupt(run_id)
        return True

    def stop(self, owner_id: UserId, session_id: SessionId, run_id: RunId | None, by: str) -> RunId | None:
        """Stop a run that is performed here; None if there is none such, or it is ending.

        If `run_id` is named, that may also be a run after whose reply work is done here.
        """
        for run in self._active.values():
            record = run.record
            if record.session_id == session_id and record.owner_id == owner_id and run_id in (None, record.id):
                return record.id if run.stop(by) else None
        return self._afterwork.stop(owner_id, session_id, run_id, by)

    async def interrupt_for_message(self, run_id: RunId) -> None:
        """Stop a run whose interrupt is already noted in the database."""
        if run := self._active.get(run_id):
            run.stop("message")
        else:
            await self._runs.notify_interrupt(run_id)

    def count(self, owner_id: UserId, *, besides: SessionId) -> int:
        """How many runs of the owner are performed here in other sessions."""
        records = [run.record for run in self._active.values()]
        return sum(record.owner_id == owner_id and record.session_id != besides for record in records)

    @property
    def performing(self) -> list[ActiveRun]:
        """The runs that are performed here."""
        return list(self._active.values())

    async def _perform(self, run: ActiveRun, *, recover: bool) -> None:
        run.begin()
        assert self._performer is not None
        with under(of_run(run.record)), self._meter.performing():
            try:
                await (self._performer.recover(run) if recover else self._performer.perform(run))
            finally:
                await run.end()

    def _ended(self, run: ActiveRun, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._active.pop(run.record.id, None)
        if not task.cancelled() and (error := task.exception()):
            # Its lease is not renewed any more, so it will be closed from its journal.
            _log.error("run %s ended without being closed", run.record.id, exc_info=error)

    async def _close(self, run: ActiveRun, ending: Ending) -> Ended | None:
        at = timestamp()
        rest = [encode(event, run.record.id, at) for event in await run.log.close()]
        whole = replace(ending, events=[*rest, *ending.events])
        ended = await until_answered(lambda: self._runs.finish(run.claimed, whole, take_next=not self.is_draining))
        if ended is None:
            return None
        self._journal.show(run.record.session_id, run.record.id, ended.first_seq, whole.events)
        run.ended(ending.finish_reason, ending.usage)
        if ended.next is not None:
            self.launch(ended.next)
        if ending.leaves_work:
            self._afterwork.begin(run.record.session_id)
        if self.is_draining:
            await self._call_others()
        if ending.reply is None:
            await self._step_back(run.record)
        return ended

    async def _call_others(self) -> None:
        """Tell the other replicas that there is work that nobody does; who does not hear it finds it all the same."""
        try:
            await self._replicas.call()
        except DatabaseError:
            _log.debug("the others will find for themselves what is left", exc_info=True)

    async def _leave_paused(self) -> None:
        """Let go of the runs that wait for somebody's word: whoever takes them over goes on with them."""
        paused = [run for run in self._active.values() if run.is_paused and run.interrupt is None and not run.is_lost]
        for run in paused:
            run.lose()
        tasks = [task for run in paused if (task := run.task) is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=self._lease)
        try:
            await self._leases.give_back([run.claimed for run in paused])
            await self._replicas.call()
        except DatabaseError:
            _log.debug("paused runs are left until their leases run out", exc_info=True)

    async def _cancel_queued(self, run: RunRecord, by: str) -> bool:
        at = timestamp()
        said: list[RunEvent] = [
            Interrupted("composing", 0, by),
            AssistantEnd(None, "interrupted", NO_USAGE, {}, Draft().text_sha256),
        ]
        events = [encode(event, run.id, at) for event in said]
        last_seq = await self._runs.cancel_queued(run, events)
        if last_seq is None:
            return False
        self._journal.show(run.session_id, run.id, last_seq - len(events) + 1, events)
        await self._step_back(run)
        return True

    async def _step_back(self, run: RunRecord) -> None:
        """A message that was not answered once more is seen with what followed it before."""
        if not run.request.get("answers"):
            return
        at = timestamp()
        stepped = await until_answered(
            lambda: self._runs.step_back(
                run, lambda leaf: encode(SessionUpdated({"active_message_id": str(leaf)}), None, at)
            )
        )
        if stepped is not None:
            self._journal.show(run.session_id, None, stepped.seq, [stepped.event])

    # --- keeping house -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease / 3):
                    await self._work_is_left.wait()
            self._work_is_left.clear()
            await self._keep_house()

    async def _keep_house(self, *, at_once: bool = False) -> None:
        """Say that we live, keep our leases, and take what nobody keeps."""
        try:
            self._journal.others = await self._replicas.beat(self.replica_id, lease_seconds=self._lease) > 0
            await self._renew()
            self.queued = await self._leases.count_waiting()
            await self._afterwork.renew()
            if not self._is_listening:
                await self._listen()
            if self._journal.others:
                await self._feeds.catch_up(self._feeds.watched())
            if not self.is_draining and time.monotonic() - self._last_failure > self._lease:
                await self._take_what_is_left(at_once=at_once)
                await self._afterwork.take_what_is_left(at_once=at_once)
            if time.monotonic() - self._last_prune > _PRUNE_SECONDS:
                self._last_prune = time.monotonic()
                await self._events.prune(older_than_seconds=self._retention, sessions=_PRUNED_AT_ONCE)
        except DatabaseError as error:
            # After an outage every lease has run out. Their owners get the time of one lease to renew them.
            self._last_failure = time.monotonic()
            _log.warning("housekeeping waits for the database: %s", error)
        except Exception:  # noqa: BLE001 - without housekeeping every lease would run out
            _log.exception("housekeeping failed")

    async def _renew(self) -> None:
        claims = [run.claimed for run in self._active.values()]
        if not claims:
            return
        for run_id in await self._leases.renew(self.replica_id, [claimed.run.session_id for claimed in claims]):
            self._heard_interrupt(str(run_id))
        # A run that has something to write finds out by itself. One whose model is silent would wait for it on and on,
        # and be taken for the session's run by whoever wants to stop that.
        for run_id in await self._leases.void(claims):
            if run := self._active.get(run_id):
                run.lose()

    async def _take_what_is_left(self, *, at_once: bool) -> None:
        while True:
            busy = [run.record.session_id for run in self._active.values()]
            left = await self._leases.take_over(self.replica_id, besides=busy, limit=_TAKEN_AT_ONCE, at_once=at_once)
            for claimed in left:
                self.launch(claimed, recover=True)
            waiting = await self._leases.claim_waiting(self.replica_id, limit=_TAKEN_AT_ONCE)
            for claimed in waiting:
                self.launch(claimed)
            if len(left) < _TAKEN_AT_ONCE and len(waiting) < _TAKEN_AT_ONCE:
                return

    async def _listen(self) -> None:
        self._stop_listening = await self._database.listen(
            {
                "colloquy_events": self._heard_events,
                "colloquy_interrupts": self._heard_interrupt,
                "colloquy_approvals": self._decisions.heard,
                "colloquy_replicas": self._heard_replica,
                "colloquy_work": self._heard_of_work,
                **self._heard,
            },
            lost=self._lost_connection,
        )
        self._is_listening = True
        await self._replicas.announce(self.replica_id)
        await self._feeds.catch_up(self._feeds.watched())

    def _lost_connection(self) -> None:
        self._is_listening = False

    def _heard_events(self, payload: str) -> None:
        for item in payload.split(","):
            session, _, seq = item.partition(":")
            self._feeds.advance(SessionId(UUID(session)), int(seq))

    def _heard_replica(self, payload: str) -> None:
        # Whoever is new reads from now on, and would otherwise wait for our next beat to be woken.
        if payload != str(self.replica_id):
            self._journal.others = True

    def _heard_of_work(self, _payload: str) -> None:
        if not self.is_draining:
            self._work_is_left.set()

    def _heard_interrupt(self, payload: str) -> None:
        run_id = RunId(UUID(payload))
        if run := self._active.get(run_id):
            run.stop("user")
            return
        if self._afterwork.heard_interrupt(run_id):
            return
        self._interrupts[run_id] = None
        while len(self._interrupts) > _REMEMBERED_INTERRUPTS:
            self._interrupts.pop(next(iter(self._interrupts)))

    async def _leave(self) -> None:
        if self._stop_listening is not None:
            await self._stop_listening()
        try:
            await self._replicas.leave(self.replica_id)
        except DatabaseError:
            _log.debug("could not say goodbye", exc_info=True)
