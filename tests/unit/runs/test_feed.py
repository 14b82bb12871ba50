"""Readers are given every event once and in order, however late or torn the news of it come."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.ids import SessionId
from db.records import EventRecord
from db.stores.events import EventStore
from services.runs import feed as feed_module
from services.runs.events import frame_text
from services.runs.feed import Feed, Frame, JournalGone, PastIsGone, Reader

SESSION = SessionId(UUID(int=1))


@dataclass
class FakeStore:
    """The committed rows of one session."""

    rows: list[EventRecord] = field(default_factory=list[EventRecord])
    reads: int = 0

    def commit(self, count: int) -> None:
        for _ in range(count):
            seq = (self.rows[-1].seq if self.rows else 0) + 1
            self.rows.append(EventRecord(seq, None, "text_delta", '{"delta":"' + "x" * (seq % 50) + '"}'))

    @property
    def newest(self) -> int:
        return self.rows[-1].seq if self.rows else 0

    def frames(self, first: int, last: int) -> list[Frame]:
        rows = [row for row in self.rows if first <= row.seq <= last]
        return [Frame(row.seq, row.type, row.run_id, frame_text(row.type, row.seq, row.body)) for row in rows]

    async def after(
        self, session_id: SessionId, position: int, *, limit: int, octets: int | None = None
    ) -> list[EventRecord]:
        assert session_id == SESSION
        self.reads += 1
        return [row for row in self.rows if row.seq > position][:limit]


def reader_of(feed: Feed, store: FakeStore, position: int) -> Reader:
    reader = Reader(feed, cast("EventStore", store), position)
    feed.readers.add(reader)
    return reader


async def read_to(reader: Reader, newest: int) -> list[Frame]:
    frames: list[Frame] = []
    while reader.position < newest:
        frames += await asyncio.wait_for(reader.next(), 5)
    return frames


@dataclass(frozen=True)
class Commit:
    count: int


@dataclass(frozen=True)
class Publish:
    """Tell of some committed frames, perhaps long after others were told of."""

    behind: int
    length: int


@dataclass(frozen=True)
class Advance:
    """Only tell how far the journal has come, perhaps not even that far."""

    behind: int


@dataclass(frozen=True)
class Attach:
    behind: int


@dataclass(frozen=True)
class Read:
    reader: int


steps = st.one_of(
    st.builds(Commit, st.integers(1, 2)),
    st.builds(Publish, st.integers(0, 3), st.integers(1, 3)),
    st.builds(Advance, st.integers(0, 2)),
    st.builds(Attach, st.integers(0, 2)),
    st.builds(Read, st.integers(0, 3)),
)


@settings(max_examples=500)
@given(st.lists(steps, max_size=30), st.integers(2, 10))
def test_no_reader_ever_misses_an_event_or_sees_one_twice(story: list[object], cached: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_module, "_CACHED_FRAMES", cached)  # so that a short story outgrows it
        with asyncio.Runner() as runner:
            runner.run(_tell(story))


async def _tell(story: Sequence[object]) -> None:
    feed, store = Feed(SESSION), FakeStore()
    readers: list[tuple[Reader, int]] = [(reader_of(feed, store, 0), 0)]
    given: dict[Reader, list[int]] = {readers[0][0]: []}
    for step in story:
        match step:
            case Commit(count):
                store.commit(count)
            case Publish(behind, length):
                first = max(1, store.newest - behind)
                if frames := store.frames(first, first + length - 1):
                    feed.publish(frames)
            case Advance(behind):
                feed.advance(max(0, store.newest - behind))
            case Attach(behind):
                position = max(0, store.newest - behind)
                reader = reader_of(feed, store, position)
                readers.append((reader, position))
                given[reader] = []
                feed.advance(store.newest)
            case Read(index):
                reader, _ = readers[index % len(readers)]
                if reader.position < feed.newest:
                    given[reader] += [frame.seq for frame in await reader.next()]
            case _:
                raise AssertionError(step)
    feed.advance(store.newest)
    for reader, position in readers:
        given[reader] += [frame.seq for frame in await read_to(reader, store.newest)]
        assert given[reader] == list(range(position + 1, store.newest + 1))


async def test_a_reader_that_attaches_before_a_commit_is_told_of_leaves_no_hole_for_the_others():
    feed, store = Feed(SESSION), FakeStore()
    early = reader_of(feed, store, 0)
    store.commit(3)
    feed.publish(store.frames(1, 2))
    late = reader_of(feed, store, 3)
    feed.advance(3)  # what a reader that attaches finds in the database
    feed.publish(store.frames(3, 3))
    store.commit(1)
    feed.publish(store.frames(4, 4))
    assert [frame.seq for frame in await read_to(early, 4)] == [1, 2, 3, 4]
    assert [frame.seq for frame in await read_to(late, 4)] == [4]


async def test_what_is_in_memory_is_not_read_from_the_database():
    feed, store = Feed(SESSION), FakeStore()
    readers = [reader_of(feed, store, 0) for _ in range(5)]
    for seq in range(1, 100):
        store.commit(1)
        feed.publish(store.frames(seq, seq))
    for reader in readers:
        assert len(await read_to(reader, 99)) == 99
    assert store.reads == 0


async def test_a_reader_that_waits_is_woken():
    feed, store = Feed(SESSION), FakeStore()
    waiting = asyncio.create_task(reader_of(feed, store, 0).next())
    await asyncio.sleep(0)
    store.commit(1)
    feed.publish(store.frames(1, 1))
    assert [frame.seq for frame in await asyncio.wait_for(waiting, 5)] == [1]


async def test_a_reader_whose_wait_is_cancelled_can_wait_again():
    feed, store = Feed(SESSION), FakeStore()
    reader = reader_of(feed, store, 0)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    store.commit(1)
    feed.publish(store.frames(1, 1))
    assert [frame.seq for frame in await asyncio.wait_for(reader.next(), 5)] == [1]


async def test_a_hole_in_the_rows_is_said_and_never_skipped():
    feed, store = Feed(SESSION), FakeStore()
    reader = reader_of(feed, store, 1)
    store.commit(5)
    del store.rows[:3]
    feed.advance(5)
    with pytest.raises(PastIsGone):
        await reader.next()


async def test_the_end_of_a_session_wakes_those_who_wait():
    feed, store = Feed(SESSION), FakeStore()
    waiting = asyncio.create_task(reader_of(feed, store, 0).next())
    await asyncio.sleep(0)
    feed.end()
    with pytest.raises(JournalGone):
        await asyncio.wait_for(waiting, 5)
