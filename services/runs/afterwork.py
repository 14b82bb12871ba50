"""What is done after a reply is closed: stages 4 and 5, in order within a session, and never in the way of a message.

A run that ends with such work leaves a row in `post_responses`. One task per session works through them. What was
begun by a process that died, or that had to go down, is done again from the beginning by whoever takes it over.

When the stages are told to be over, side jobs follow: what the service does for itself (a title, a summary). Nobody
waits for them, nothing is told of them under the run's id, and they are stopped as the work is, but without a word. A
job is wanted by name when a reply is closed (`SideJob.wants`), and its name stands in the row.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import orjson

from db.errors import DatabaseError
from db.ids import ReplicaId, RunId, SessionId, UserId
from db.records import EventRecord, RunRecord
from db.stores.events import EventStore
from db.stores.post_responses import PostClaim, PostResponseStore, Then
from services.agent.types import Usage, total
from services.runs.active import ActiveRun, Interrupt
from services.runs.events import Event, Interrupted, PostResponseComplete, StageUpdate, encode, timestamp
from services.runs.journal import Journal
from services.runs.retry import until_answered
from services.telemetry.circumstances import of_run, under
from services.telemetry.meters import RunMeter, StageClock

_log = logging.getLogger(__name__)

_SESSIONS_AT_ONCE = 20
"""How many sessions of others are worked in at the same time. Those whose runs ended here don't wait for that."""


_BEGUN_AT_MOST = 10
"""Work that was begun this often and never ended may be what brings its owners down."""


class GivenUp(Exception):
    """The work was begun too often."""


class Responder(Protocol):
    """What is done after replies."""

    def wants(self, run: "ActiveRun") -> bool:
        """Whether there is anything to do after this reply, which went well and is about to be closed.

        Is asked between the reply's last word and its end: must neither wait nor raise.
        """
        ...

    async def respond(self, work: "PostWork") -> Sequence[Mapping[str, Any]]:
        """Do the work, and return what `post_response_complete` tells of each module.

        Doing it again must be the same as doing it once: it is begun anew after the death of its owner, and also
        when it raises `DatabaseUnavailable` or `WriteConflict`. It may be cancelled at any moment. A module that
        fails is no reason to raise.
        """
        ...


class SideJob(Protocol):
    """Something that the service does for itself after a reply."""

    @property
    def name(self) -> str:
        """What the job is called in the database."""
        ...

    def wants(self, run: ActiveRun) -> bool:
        """Whether there is anything to do after this good reply: must neither wait nor raise."""
        ...

    async def do(self, work: "PostWork") -> Usage | None:
        """Do it, and return what it has cost.

        Doing it again must be the same as doing it once, as with `Responder.respond`. If it raises anything else, that
        is logged and the job is over: nobody is told of it. It may be cancelled at any moment.
        """
        ...


class PostWork:
    """What a responder works with: whose reply it is about, and where its stages are told."""

    def __init__(self, claimed: PostClaim, stages: StageClock) -> None:
        self.claimed = claimed
        self._stages = stages
        self.interrupt: Interrupt | None = None
        self.is_lost = False
        self.is_closing = False
        self.news = asyncio.Event()
        self._spent: Usage | None = None
        self._told: list[tuple[int, str]] = []
        self._untold: list[StageUpdate] = []
        self._task: asyncio.Task[Any] | None = None
        if claimed.interrupt_by is not None:
            self.stop(claimed.interrupt_by)

    @property
    def record(self) -> RunRecord:
        """The run as it ended."""
        return self.claimed.run

    @property
    def owner_id(self) -> UserId:
        """Whose session it is."""
        return self.record.owner_id

    @property
    def session_id(self) -> SessionId:
        """Where the reply stands."""
        return self.record.session_id

    def spend(self, usage: Usage | None) -> None:
        """Count what was asked of a model for the work; it is told with what is written next."""
        self._spent = total(self._spent, usage)

    @property
    def usages(self) -> dict[str, Any]:
        """For the afterwork: what the responder has spent. Who begins the work anew adds to it, under his fence."""
        return {} if self._spent is None else {f"modules/{self.claimed.fence}": asdict(self._spent)}

    def emit(self, update: StageUpdate) -> None:
        """Tell that a stage began or ended; nothing is told twice, however often the work is begun anew."""
        key = (update.stage, update.status)
        if key not in self._told:
            self._told.append(key)
            self._untold.append(update)
            self._stages.note(update.stage, update.status)
            self.news.set()

    def attach(self, task: asyncio.Task[Any]) -> None:
        """For the afterwork: the task that does it."""
        self._task = task
        task.add_done_callback(lambda _: self.news.set())
        if self.interrupt or self.is_lost:
            task.cancel()

    def told(self, stages: Iterable[tuple[int, str]]) -> None:
        """For the afterwork: what somebody has told of who had begun this work before."""
        self._told.extend(stages)

    def take(self) -> list[Event]:
        """For the afterwork: what was emitted since the last time."""
        taken, self._untold = self._untold, []
        return [*taken]

    def end_stages(self) -> None:
        """For the afterwork: tell of the stage that was begun and not ended that it is over."""
        for stage, status in list(self._told):
            if status == "started":
                self.emit(StageUpdate.ended(stage))

    def stop(self, by: str) -> bool:
        """Interrupt the work; False if it is ending anyway."""
        if self.is_closing or self.is_lost or self.interrupt is not None:
            return False
        self.interrupt = Interrupt(by, time.monotonic())
        self._cancel()
        return True

    def lose(self) -> None:
        """Stop working: the work belongs to another replica now."""
        self.is_lost = True
        self._cancel()

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be done of it here."""
        return self.is_lost or self.interrupt is not None

    def interrupt_ms(self) -> int:
        """Milliseconds since somebody said stop."""
        return 0 if self.interrupt is None else round((time.monotonic() - self.interrupt.at) * 1000)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Afterwork:
    """The work after replies of one replica."""

    def __init__(
        self,
        *,
        responder: Responder,
        jobs: Sequence[SideJob] = (),
        store: PostResponseStore,
        events: EventStore,
        journal: Journal,
        meter: RunMeter,
        replica_id: ReplicaId,
        work_seconds: float,
    ) -> None:
        self._responder = responder
        self._jobs = jobs
        self._store = store
        self._events = events
        self._journal = journal
        self._meter = meter
        self._replica_id = replica_id
        self._work_seconds = work_seconds
        self._works: dict[RunId, PostWork] = {}
        self._tasks: dict[SessionId, asyncio.Task[None]] = {}
        self._asked_again: set[SessionId] = set()
        self._is_draining = False

    def wants(self, run: ActiveRun) -> bool:
        """Whether a reply that went well leaves work to do."""
        return self._responder.wants(run)

    def jobs_after(self, run: ActiveRun) -> tuple[str, ...]:
        """The names of the side jobs that a reply that went well leaves."""
        return tuple(job.name for job in self._jobs if job.wants(run))

    def begin(self, session_id: SessionId, claimed: PostClaim | None = None) -> None:
        """See to it that what waits in the session is done, beginning with what was claimed already."""
        if self._is_draining:
            return
        if session_id in self._tasks:
            self._asked_again.add(session_id)  # its task may have looked for the last time just now
            return
        task = asyncio.create_task(self._work_through(session_id, claimed), name=f"after the replies of {session_id}")
        self._tasks[session_id] = task
        task.add_done_callback(lambda task: self._left(session_id, task))

    def stop(self, owner_id: UserId, session_id: SessionId, run_id: RunId | None, by: str) -> RunId | None:
        """Stop the work after that reply if it is done here; None if it is not, or is ending."""
        work = None if run_id is None else self._works.get(run_id)
        if work is None or (work.owner_id, work.session_id) != (owner_id, session_id):
            return None
        return run_id if work.stop(by) else None

    async def interrupt(self, session_id: SessionId, run_id: RunId, by: str) -> bool:
        """Stop the work after that reply wherever it is done; False if it has already ended."""
        if work := self._works.get(run_id):
            return work.stop(by)
        noted = await self._store.request_interrupt(session_id, run_id, by, self._replica_id)
        if noted is None:
            return False
        if noted.claimed is not None:
            work = PostWork(noted.claimed, self._meter.stages())
            await self._write(work, [] if work.claimed.is_told else _stopped(work), "done")
            self.begin(session_id)
        return True

    def heard_interrupt(self, run_id: RunId, by: str = "user") -> bool:
        """Another replica was told to stop the work after that reply; False if it is not done here."""
        return run_id in self._works and self._works[run_id].stop(by)

    async def newest(self, session_id: SessionId, owner_id: UserId) -> RunId | None:
        """The newest run of the owner's session after which work is unfinished."""
        return await self._store.newest(session_id, owner_id)

    @property
    def working(self) -> list[PostWork]:
        """What is being done here."""
        return list(self._works.values())

    # --- one session, top to bottom --------------------------------------------------------------------------------

    async def _work_through(self, session_id: SessionId, claimed: PostClaim | None) -> None:
        claimed = claimed or await self._next(session_id)
        while claimed is not None:
            await self._perform(claimed)
            claimed = None if self._is_draining else await self._next(session_id)

    async def _next(self, session_id: SessionId) -> PostClaim | None:
        return await until_answered(lambda: self._store.claim_next(session_id, self._replica_id))

    async def _perform(self, claimed: PostClaim) -> None:
        """Do one reply's work to its end; what is cancelled on the way is left for somebody else."""
        work = PostWork(claimed, self._meter.stages())
        self._works[work.record.id] = work
        try:
            if not claimed.is_told:
                work.told(await until_answered(lambda: self._told_before(claimed)))
                events = await self._respond(work)
                if not work.is_lost:
                    await self._write(work, events, "jobs" if claimed.jobs and not work.interrupt else "done")
            if claimed.jobs and not work.is_over:
                await self._do_jobs(work)
        except asyncio.CancelledError:
            await self._give_back(work)
            raise
        finally:
            del self._works[work.record.id]

    async def _respond(self, work: PostWork) -> list[Event]:
        """Let the responder work, and write what it tells meanwhile. Returns what is to be told at the end."""
        task = asyncio.create_task(self._ask_responder(work), name=f"after run {work.record.id}")
        work.attach(task)
        try:
            while not task.done():
                await work.news.wait()
                work.news.clear()
                if not task.done() and (events := work.take()):
                    await self._write(work, events)
        finally:
            task.cancel()
            await asyncio.wait([task])
        work.is_closing = True
        return _stopped(work) if work.interrupt else _ended(work, task)

    async def _do_jobs(self, work: PostWork) -> None:
        """Do the side jobs, one after the other; whoever stops the work stops all of them."""
        work.is_closing = False
        usages: dict[str, Any] = {}
        for job in self._jobs:
            if job.name in work.claimed.jobs and not work.is_over and work.claimed.fence <= _BEGUN_AT_MOST:
                usage = await self._do_job(job, work)
                if usage is not None:
                    usages[job.name] = asdict(usage)
        work.is_closing = True
        if not work.is_lost:
            await self._write(work, [], "done", usages)

    async def _do_job(self, job: SideJob, work: PostWork) -> Usage | None:
        task = asyncio.create_task(self._ask_job(job, work), name=f"{job.name} after run {work.record.id}")
        work.attach(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _ask_job(self, job: SideJob, work: PostWork) -> Usage | None:
        with under(of_run(work.record)):
            try:
                async with asyncio.timeout(self._work_seconds):
                    return await until_answered(lambda: job.do(work))
            except Exception:  # noqa: BLE001 - the border of the job: nobody waits for it
                _log.exception("the %s after run %s failed", job.name, work.record.id)
                return None

    async def _ask_responder(self, work: PostWork) -> Sequence[Mapping[str, Any]]:
        if work.claimed.fence > _BEGUN_AT_MOST:
            raise GivenUp
        with under(of_run(work.record)):
            async with asyncio.timeout(self._work_seconds):
                return await until_answered(lambda: self._responder.respond(work))

    async def _write(
        self, work: PostWork, events: Sequence[Event], then: Then = "stages", usage: Mapping[str, Any] | None = None
    ) -> None:
        """Commit events of the work and what is left of it, then show them."""
        at = timestamp()
        encoded = [encode(event, work.record.id, at) for event in events]
        usages = {**work.usages, **(usage or {})}
        first_seq = await until_answered(lambda: self._store.write(work.claimed, encoded, then, usages))
        if not encoded:
            return
        if first_seq is None:
            work.lose()
            return
        work.claimed = replace(work.claimed, shown_to=first_seq + len(encoded) - 1)
        self._journal.show(work.session_id, work.record.id, first_seq, encoded)

    async def _told_before(self, claimed: PostClaim) -> list[tuple[int, str]]:
        """Which stages somebody who had begun this work has told of."""
        run = claimed.run
        if claimed.shown_to is None or run.last_seq is None:
            return []
        return [_stage(event) for event in await self._events.of_run(run.session_id, run.id, run.last_seq + 1)]

    async def _give_back(self, work: PostWork) -> None:
        try:
            await self._store.give_back(work.claimed)
        except DatabaseError:
            _log.debug("work after a reply is left until its lease runs out", exc_info=True)

    def _left(self, session_id: SessionId, task: asyncio.Task[None]) -> None:
        del self._tasks[session_id]
        if not task.cancelled() and (error := task.exception()):
            # Its lease is not renewed any more, so it will be done again.
            _log.error("the work after the replies of %s broke off", session_id, exc_info=error)
        elif session_id in self._asked_again:
            self._asked_again.discard(session_id)
            self.begin(session_id)

    # --- keeping house ---------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Keep the leases of what is done here, and find out what was lost or is to stop."""
        works = self.working
        if not works:
            return
        kept = await self._store.renew([work.claimed for work in works])
        for work in works:
            if work.record.id not in kept:
                work.lose()
            elif by := kept[work.record.id]:
                work.stop(by)

    async def take_what_is_left(self, *, at_once: bool) -> None:
        """Do what nobody does; `at_once` also what is still under a lease."""
        room = _SESSIONS_AT_ONCE - len(self._tasks)
        if self._is_draining or room <= 0:
            return
        left = await self._store.take_over(self._replica_id, besides=list(self._tasks), limit=room, at_once=at_once)
        for claimed in left:
            self.begin(claimed.run.session_id, claimed)

    def drain(self) -> None:
        """Begin nothing new."""
        self._is_draining = True

    async def leave(self) -> None:
        """Stop without a word what is being done: whoever comes next does it again. A few seconds at most."""
        self.drain()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


def _stopped(work: PostWork) -> list[Event]:
    """What ends work that somebody stopped: nothing of the run may follow it."""
    by = work.interrupt.by if work.interrupt else "user"
    return [*work.take(), Interrupted("post_response", work.interrupt_ms(), by)]


def _ended(work: PostWork, task: asyncio.Task[Sequence[Mapping[str, Any]]]) -> list[Event]:
    """What ends work that nobody stopped. The reply was a good one, so a failure after it is no error of the run."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is None:
        return [*work.take(), PostResponseComplete(tuple(task.result()))]
    if not work.is_lost:
        _log.error("the work after run %s failed", work.record.id, exc_info=error)
    work.end_stages()
    return [*work.take(), PostResponseComplete()]


def _stage(event: EventRecord) -> tuple[int, str]:
    """What is told after an `assistant_end` and before the end of the work is all of stages."""
    body = orjson.loads(event.body)
    return body["stage"], body["status"]
