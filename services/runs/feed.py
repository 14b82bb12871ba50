"""Reading a journal: any number of readers per session, each at a position of its own.

A feed keeps the newest frames of one session in memory, as a cache of the rows that are committed. A reader
that falls behind the cache reads the rows. So a reader costs no memory while it waits, and can neither miss
an event nor see one twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from db.ids import RunId, SessionId
from db.stores.events import EventStore
from services.runs.events import frame_text

_CACHED_FRAMES = 512
_CACHED_CHARACTERS = 262_144
_PAGE_FRAMES = 500
_PAGE_OCTETS = 65_536


class Frame(NamedTuple):
    """One committed event, serialised once for all its readers."""

    seq: int
    type: str
    run_id: RunId | None
    text: str


class JournalGone(Exception):
    """The session was deleted, and its journal with it."""


class PastIsGone(Exception):
    """The events that come next were dropped after their time: the reader has to begin anew."""


class Feed:
    """The newest frames of one session."""

    __slots__ = ("_characters", "_frames", "is_gone", "newest", "readers", "session_id")

    def __init__(self, session_id: SessionId) -> None:
        self.session_id = session_id
        self.newest = 0
        self.is_gone = False
        self.readers: set[Reader] = set()
        self._frames: list[Frame] = []
        self._characters = 0

    def publish(self, frames: Sequence[Frame]) -> None:
        """Take committed frames and wake the readers. Frames may come late or with a gap before them."""
        if frames[-1].seq <= self.newest:
            return
        # `newest` may be ahead of what is here: a reader that attaches reads it from the database.
        if self._frames and frames[0].seq != self._frames[-1].seq + 1:
            self._frames.clear()
            self._characters = 0
        characters = sum([len(frame.text) for frame in frames])
        self._frames.extend(frames)
        self._characters += characters
        self._trim()
        self.advance(frames[-1].seq, characters)

    def advance(self, newest: int, characters: int = 0) -> None:
        """Wake the readers: the journal has reached `newest`."""
        if newest <= self.newest:
            return
        self.newest = newest
        for reader in tuple(self.readers):
            reader.wake(characters)

    def end(self) -> None:
        """Wake the readers for the last time: there is no journal any more."""
        self.is_gone = True
        for reader in tuple(self.readers):
            reader.wake(0)

    def cached_after(self, position: int) -> Sequence[Frame] | None:
        """The frames after `position`; None if they are not in memory any more."""
        if not self._frames or self._frames[-1].seq != self.newest:
            return None
        first = self._frames[0].seq
        return None if position + 1 < first else self._frames[position + 1 - first :]

    def _trim(self) -> None:
        if len(self._frames) <= _CACHED_FRAMES and self._characters <= _CACHED_CHARACTERS:
            return
        # Halve it: trimming one by one would move the whole list for each frame.
        while len(self._frames) > _CACHED_FRAMES // 2 or self._characters > _CACHED_CHARACTERS // 2:
            if len(self._frames) == 1:
                return
            half = max(1, len(self._frames) // 4)
            self._characters -= sum(len(frame.text) for frame in self._frames[:half])
            del self._frames[:half]


class Reader:
    """One reader of a session's journal; `position` is the last event that it was given."""

    __slots__ = ("_backlog", "_backlog_limit", "_feed", "_is_busy", "_on_backlog", "_store", "_waiter", "position")

    def __init__(self, feed: Feed, store: EventStore, position: int) -> None:
        self._feed = feed
        self._store = store
        self._waiter: asyncio.Future[None] | None = None
        self.position = position
        self._is_busy = False  # with what it was given
        self._backlog = 0  # characters published since then
        self._backlog_limit: int | None = None
        self._on_backlog: Callable[[], None] | None = None

    def limit_backlog(self, characters: int, exceeded: Callable[[], None]) -> None:
        """Call `exceeded()` when that much waits while the reader is busy with what it was given."""
        self._backlog_limit, self._on_backlog = characters, exceeded

    async def next(self) -> Sequence[Frame]:
        """The events after `position`, waiting for one if need be. Raises `JournalGone` and `PastIsGone`."""
        self._is_busy, self._backlog = False, 0
        while self._feed.newest <= self.position:
            if self._feed.is_gone:
                raise JournalGone
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frames = self._feed.cached_after(self.position)
        if frames is None:
            frames = await self._read_rows()
        self.position = frames[-1].seq
        self._is_busy = True
        return frames

    def wake(self, characters: int) -> None:
        """There may be more."""
        if self._is_busy:
            # However much comes at once, whoever reads may be busy just then. What comes on top of it tells.
            if self._on_backlog is not None and self._backlog_limit is not None and self._backlog > self._backlog_limit:
                self._on_backlog()
            self._backlog += characters
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _read_rows(self) -> Sequence[Frame]:
        # Small pages: whoever catches up comes back for more often enough not to look like one that does not read.
        rows = await self._store.after(self._feed.session_id, self.position, limit=_PAGE_FRAMES, octets=_PAGE_OCTETS)
        if not rows or rows[0].seq != self.position + 1:
            raise JournalGone if self._feed.is_gone else PastIsGone
        return [Frame(row.seq, row.type, row.run_id, frame_text(row.type, row.seq, row.body)) for row in rows]


class Feeds:
    """The feeds of the sessions that somebody here reads."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._feeds: dict[SessionId, Feed] = {}

    @asynccontextmanager
    async def reader(self, session_id: SessionId) -> AsyncGenerator[Reader, None]:
        """A reader that does not know its position yet: set `position`, and tell the feed what is `newest`.

        It is registered before the journal's head is looked up, so that nothing can happen in between unseen.
        """
        feed = self._feeds.setdefault(session_id, Feed(session_id))
        reader = Reader(feed, self._store, 0)
        feed.readers.add(reader)
        try:
            yield reader
        finally:
            feed.readers.discard(reader)
            if not feed.readers and self._feeds.get(session_id) is feed:
                del self._feeds[session_id]

    @property
    def readers(self) -> int:
        """How many read here."""
        return sum(len(feed.readers) for feed in self._feeds.values())

    def publish(self, session_id: SessionId, frames: Sequence[Frame]) -> None:
        """Show committed frames to the session's readers here."""
        if frames and (feed := self._feeds.get(session_id)):
            feed.publish(frames)

    def advance(self, session_id: SessionId, newest: int) -> None:
        """Tell the session's readers that the journal has reached `newest`, without the frames."""
        if feed := self._feeds.get(session_id):
            feed.advance(newest)

    def end(self, session_id: SessionId) -> None:
        """Tell the session's readers that it was deleted."""
        if feed := self._feeds.pop(session_id, None):
            feed.end()

    def watched(self) -> list[SessionId]:
        """The sessions that somebody here reads."""
        return list(self._feeds)

    async def catch_up(self, session_ids: Iterable[SessionId]) -> None:
        """Look whether those journals have gone on: for when a wake-up was lost."""
        asked = list(session_ids)
        newest = await self._store.last_seqs(asked)
        for session_id in asked:
            if session_id in newest:
                self.advance(session_id, newest[session_id])
            else:
                self.end(session_id)
