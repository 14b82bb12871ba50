"""Writing the journals: durable before it is shown, and never in the way of the token loop.

`RunLog.append` only puts an event in memory. One writer task takes all that gathered while the commit before
was on its way, from every run of this replica, and commits it in one statement. Under load that is one commit
for many runs; without load it is one commit per delta, at once.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from db.errors import DatabaseError, DatabaseUnavailable, WriteConflict
from db.ids import RunId, SessionId
from db.stores.events import Batch, EventStore, NewEvent
from db.stores.leases import Claimed
from services.runs.events import (
    Delta,
    Event,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    encode_under,
    frame_text,
    run_prefix,
    timestamp,
)
from services.runs.feed import Feeds, Frame
from services.runs.retry import pause
from services.telemetry.meters import JournalMeter

_log = logging.getLogger(__name__)

_DELTA_CHARACTERS = 16_384
"""The longest delta of one event: a frame that any client's defaults accept."""
_EVENT_CHARACTERS = 256
"""What an event other than a delta is taken to weigh while it waits."""
_FLUSH_SECONDS = 0.003
"""The shortest time from one flush to the next: a commit costs as much CPU as relaying several deltas."""
_UNHURRIED_SECONDS = 0.003
"""How long what is no delta waits: nobody sees the difference, and a model that answers at once saves a commit."""
_NOTIFIED_SESSIONS = 150
"""Sessions in one notification: PostgreSQL refuses payloads of 8000 bytes."""


class Marks(Protocol):
    """Is told that a log has something to be written; what is not urgent may wait a little for company."""

    def __call__(self, log: "RunLog", /, *, urgent: bool) -> None: ...


class RunLog:
    """The writing end of one run's events."""

    __slots__ = (
        "_awaited",
        "_dirty",
        "_in_flight",
        "_limit",
        "_on_lost",
        "_pending",
        "_prefix",
        "_room",
        "claimed",
        "is_open",
    )

    def __init__(self, claimed: Claimed, *, dirty: "Marks", on_lost: Callable[[], None], limit: int) -> None:
        self.claimed = claimed
        self.is_open = True
        self._prefix = run_prefix(claimed.run.id)
        self._dirty = dirty
        self._on_lost = on_lost
        self._limit = limit
        self._pending = _Pending()
        self._awaited: asyncio.Future[None] | None = None
        self._in_flight: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def hold(self, until: asyncio.Future[None]) -> None:
        """Write nothing more before that has ended, however it does."""
        self._awaited = until
        until.add_done_callback(lambda _: self._dirty(self, urgent=True))

    def append(self, event: Event) -> None:
        """Take an event; readers see it once it is committed. Nothing is taken after `close`."""
        if self.is_open:
            self._pending.add(event)
            self._dirty(self, urgent=isinstance(event, TextDelta | ThinkingDelta | RefusalDelta))

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that the run has to wait in `room`."""
        return self._pending.characters > self._limit

    async def room(self) -> None:
        """Wait until the writer has taken what waits."""
        while self.is_full and self.is_open:
            self._room = self._room or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    async def close(self) -> list[Event]:
        """End the log, and take back what nobody has begun to write: it goes into the run's last transaction."""
        self.is_open = False
        while self._in_flight is not None:
            await asyncio.shield(self._in_flight)
        if self._awaited is not None:
            await asyncio.wait([self._awaited])
        return self._pending.take()

    def begin_flush(self) -> list[Event]:
        """For the writer: what waits, nothing if the log is held or closed. Else `end_flush` is to follow."""
        if not self.is_open or not (self._awaited is None or self._awaited.done()):
            return []
        events = self._pending.take()
        if not events:
            return []
        self._in_flight = asyncio.get_running_loop().create_future()
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
        return events

    def batch(self, events: Sequence[Event], at: str) -> Batch:
        """For the writer: `events` as they are stored."""
        run = self.claimed.run
        return Batch(
            run.session_id,
            run.id,
            self.claimed.lease.fence,
            [encode_under(event, self._prefix, at) for event in events],
        )

    def end_flush(self, *, lost: bool) -> None:
        """For the writer: what `begin_flush` gave is committed, or refused for good."""
        if self._in_flight is not None:
            self._in_flight.set_result(None)
            self._in_flight = None
        if lost:
            self.is_open = False
            self._on_lost()


class _Pending:
    """Events that wait, with neighbouring deltas of one kind made into one."""

    __slots__ = ("_events", "_kind", "_length", "_pieces", "characters")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._kind: type[Delta] = TextDelta
        self._pieces: list[str] = []
        self._length = 0
        self.characters = 0

    def add(self, event: Event) -> None:
        if isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
            self._add_delta(type(event), event.delta)
            return
        self._end_delta()
        self._events.append(event)
        self.characters += _EVENT_CHARACTERS

    def take(self) -> list[Event]:
        self._end_delta()
        events, self._events, self.characters = self._events, [], 0
        return events

    def _add_delta(self, kind: type[Delta], text: str) -> None:
        self.characters += len(text)
        while text:
            if kind is not self._kind or self._length >= _DELTA_CHARACTERS:
                self._end_delta()
                self._kind = kind
            piece, text = text[: _DELTA_CHARACTERS - self._length], text[_DELTA_CHARACTERS - self._length :]
            self._pieces.append(piece)
            self._length += len(piece)

    def _end_delta(self) -> None:
        if self._pieces:
            self._events.append(self._kind("".join(self._pieces)))
            self._pieces, self._length = [], 0


@dataclass(frozen=True, slots=True)
class _Write:
    """What one run adds in one flush."""

    log: RunLog
    batch: Batch


class Journal:
    """The one writer of this replica."""

    def __init__(
        self, store: EventStore, feeds: Feeds, meter: JournalMeter, *, lease_seconds: float, pending_characters: int
    ) -> None:
        self._store = store
        self._feeds = feeds
        self._meter = meter
        self._lease = lease_seconds
        self._limit = pending_characters
        self._dirty: dict[RunLog, None] = {}
        self._has_dirty = asyncio.Event()
        self._waits_since: float | None = None
        self._writes_since: float | None = None
        self._reminder: asyncio.TimerHandle | None = None
        self._unannounced: dict[SessionId, int] = {}
        self._has_unannounced = asyncio.Event()
        self.others = False
        """Whether another replica is there to be notified."""

    def open(self, claimed: Claimed, on_lost: Callable[[], None]) -> RunLog:
        """The log of a run that this replica owns; `on_lost()` is called if the lease turns out to be lost."""
        return RunLog(claimed, dirty=self._mark, on_lost=on_lost, limit=self._limit)

    def show(self, session_id: SessionId, run_id: RunId | None, first_seq: int, events: Sequence[NewEvent]) -> None:
        """Show committed events to readers: those here at once, those of other replicas by a wake-up."""
        frames = [
            Frame(seq, event.type, run_id, frame_text(event.type, seq, event.body))
            for seq, event in enumerate(events, first_seq)
        ]
        self._feeds.publish(session_id, frames)
        if self.others and frames:
            self._unannounced[session_id] = frames[-1].seq
            self._has_unannounced.set()

    def end(self, session_id: SessionId) -> None:
        """Tell the readers here that the session was deleted; those of other replicas find out by looking."""
        self._feeds.end(session_id)

    async def write(self) -> None:
        """Flush whatever gathers, for ever. The task that runs this is the only one that flushes."""
        loop = asyncio.get_running_loop()
        while True:
            await self._has_dirty.wait()
            self._has_dirty.clear()
            begun = loop.time()
            logs, self._dirty = list(self._dirty), {}
            self._writes_since, self._waits_since = self._waits_since, None
            at = timestamp()
            writes = [_Write(log, log.batch(events, at)) for log in logs if (events := log.begin_flush())]
            if not writes:
                self._writes_since = None
                continue
            await self._flush_or_give_up(writes)
            self._writes_since = None
            self._meter.flushed(loop.time() - begun, sum(len(write.batch.events) for write in writes))
            # On a fast disk each delta would get a commit of its own. After a quiet moment the first event is
            # written at once; only a stream of them is slowed to so many commits a second.
            await asyncio.sleep(max(0.0, begun + _FLUSH_SECONDS - loop.time()))

    async def announce(self) -> None:
        """Tell other replicas which journals have gone on, for ever; a lost wake-up loses nothing."""
        while True:
            await self._has_unannounced.wait()
            self._has_unannounced.clear()
            grown, self._unannounced = list(self._unannounced.items()), {}
            chunks = (grown[i : i + _NOTIFIED_SESSIONS] for i in range(0, len(grown), _NOTIFIED_SESSIONS))
            try:
                await self._store.notify([",".join(f"{key.hex}:{seq}" for key, seq in chunk) for chunk in chunks])
            except Exception:  # noqa: BLE001 - a wake-up that is lost loses nothing
                _log.debug("a wake-up was lost", exc_info=True)

    @property
    def lag(self) -> float:
        """For how many seconds the oldest event has been waiting to be durable."""
        since = self._waits_since if self._writes_since is None else self._writes_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def _mark(self, log: RunLog, *, urgent: bool) -> None:
        if not self._dirty:
            self._waits_since = asyncio.get_running_loop().time()
        self._dirty[log] = None
        if urgent:
            self._has_dirty.set()
        elif self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(_UNHURRIED_SECONDS, self._remind)

    def _remind(self) -> None:
        self._reminder = None
        self._has_dirty.set()

    async def _flush_or_give_up(self, writes: list[_Write]) -> None:
        try:
            await self._flush(writes)
        except Exception:  # noqa: BLE001 - the writer must outlive whatever one flush meets
            _log.exception("events could not be written")
            for write in writes:
                write.log.end_flush(lost=True)

    async def _flush(self, writes: list[_Write]) -> None:
        """Commit all of it, waiting for the database as long as it takes."""
        flush_id = secrets.randbits(62)
        attempt, unanswered = 0, False
        while writes:
            try:
                if unanswered:
                    writes = await self._drop_committed(writes, flush_id)
                first_seqs = await self._store.append(
                    [write.batch for write in writes], flush_id=flush_id, lease_seconds=self._lease
                )
            except (DatabaseUnavailable, WriteConflict) as error:
                unanswered = unanswered or isinstance(error, DatabaseUnavailable)
                attempt += 1
                _log.warning("the journal waits for the database: %s", error)
                await pause(attempt)
            except DatabaseError:
                await self._flush_one_by_one(writes)
                return
            else:
                self._settle(writes, first_seqs)
                return

    async def _drop_committed(self, writes: list[_Write], flush_id: int) -> list[_Write]:
        """After a commit that was not answered: what it did write must not be written again."""
        states = await self._store.flush_states([write.batch.session_id for write in writes])
        committed: list[_Write] = []
        first_seqs: dict[SessionId, int] = {}
        for write in writes:
            state = states.get(write.batch.session_id)
            if state and state.flush_id == flush_id and state.fence == write.batch.fence:
                committed.append(write)
                first_seqs[write.batch.session_id] = state.flushed_to - len(write.batch.events) + 1
        self._settle(committed, first_seqs)
        return [write for write in writes if write not in committed]

    async def _flush_one_by_one(self, writes: list[_Write]) -> None:
        # The database refuses this statement, so one run has put something into it that cannot be stored.
        # It must not take its neighbours with it.
        if len(writes) == 1:
            _log.error("a run's events cannot be stored", exc_info=True)
            writes[0].log.end_flush(lost=True)
            return
        for write in writes:
            await self._flush([write])

    def _settle(self, writes: Sequence[_Write], first_seqs: dict[SessionId, int]) -> None:
        for write in writes:
            first_seq = first_seqs.get(write.batch.session_id)
            if first_seq is not None:
                self.show(write.batch.session_id, write.batch.run_id, first_seq, write.batch.events)
            write.log.end_flush(lost=first_seq is None)
