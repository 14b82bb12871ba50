"""What waits for the writer: neighbours become one, and nothing else changes."""

import asyncio
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import MessageId, ReplicaId, RunId, SessionId, UserId, new_id
from db.records import RunRecord
from db.stores.leases import Claimed, Lease
from services.runs import journal
from services.runs.events import ContextUsage, Event, RefusalDelta, TextDelta, ThinkingDelta, ToolStart
from services.runs.journal import RunLog, _Pending

LONGEST = 10
DELTAS = (TextDelta, ThinkingDelta, RefusalDelta)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=35)
events = st.one_of(
    *(st.builds(kind, texts) for kind in DELTAS), st.builds(ToolStart, texts, texts, st.none(), st.just("{}"))
)


@pytest.fixture(autouse=True, scope="module")
def short_deltas():
    """A limit that short stories reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_DELTA_CHARACTERS", LONGEST)
        yield


def merged(story: list[Event]) -> list[Event]:
    pending = _Pending()
    for event in story:
        pending.add(event)
    return pending.take()


def runs_of(story: list[Event]) -> list[Any]:
    """Each run of deltas of one kind as one text; all else as it is."""
    joined: list[Any] = []
    for event in story:
        if not isinstance(event, DELTAS):
            joined.append(event)
        elif event.delta:
            if joined and isinstance(joined[-1], tuple) and joined[-1][0] is type(event):
                joined[-1] = (type(event), joined[-1][1] + event.delta)
            else:
                joined.append((type(event), event.delta))
    return joined


@given(st.lists(events, max_size=20))
def test_text_and_order_are_kept(story: list[Event]):
    assert runs_of(merged(story)) == runs_of(story)


@given(st.lists(events, max_size=20))
def test_no_delta_is_empty_or_over_the_limit(story: list[Event]):
    lengths = [len(event.delta) for event in merged(story) if isinstance(event, DELTAS)]
    assert all(0 < length <= LONGEST for length in lengths)


@given(st.lists(events, max_size=20))
def test_deltas_are_cut_only_where_they_are_full(story: list[Event]):
    taken = merged(story)
    for one, other in pairwise(taken):
        if isinstance(one, DELTAS) and type(one) is type(other):
            assert len(one.delta) == LONGEST


@given(st.lists(events, max_size=12), st.integers(0, 12))
def test_taking_in_between_loses_and_repeats_nothing(story: list[Event], at: int):
    pending = _Pending()
    taken: list[Event] = []
    for number, event in enumerate(story):
        if number == at:
            taken += pending.take()
            assert pending.take() == []
        pending.add(event)
    assert runs_of([*taken, *pending.take()]) == runs_of(story)
    assert pending.characters == 0


def log_of(limit: int = 100) -> tuple[RunLog, list[bool], list[str]]:
    dirty: list[bool] = []
    lost: list[str] = []
    now: Any = None
    record = RunRecord(
        id=RunId(new_id()), session_id=SessionId(new_id()), owner_id=UserId(new_id()), client_message_id="",
        user_message_id=MessageId(new_id()), reply_message_id=None, state="running", request={}, interrupt_by=None,
        finish_reason=None, error=None, usage=None, timings=None, first_seq=1, last_seq=None, created_at=now,
        started_at=None, finished_at=None,
    )  # fmt: skip
    claimed = Claimed(record, Lease(ReplicaId(uuid4()), 1))

    def mark(_: RunLog, *, urgent: bool) -> None:
        dirty.append(urgent)

    log = RunLog(claimed, dirty=mark, on_lost=lambda: lost.append("lost"), limit=limit)
    return log, dirty, lost


async def test_a_full_log_makes_its_run_wait_until_the_writer_has_taken_it():
    log, _, _ = log_of(limit=100)
    log.append(TextDelta("x" * 100))
    assert not log.is_full
    log.append(TextDelta("x"))
    assert log.is_full
    log.begin_flush()
    assert not log.is_full
    await log.room()


async def test_what_was_not_begun_to_be_written_comes_back_on_closing():
    log, dirty, _ = log_of()
    log.append(TextDelta("one"))
    assert log.begin_flush() == [TextDelta("one")]
    log.append(TextDelta("two"))
    log.end_flush(lost=False)
    assert await log.close() == [TextDelta("two")]
    log.append(ContextUsage(1, 2, 3, {}))
    assert await log.close() == []
    assert log.begin_flush() == []
    assert dirty == [True, True]


async def test_a_log_whose_lease_is_lost_takes_nothing_more_and_says_so():
    log, _, lost = log_of()
    log.append(TextDelta("one"))
    log.begin_flush()
    log.end_flush(lost=True)
    log.append(TextDelta("two"))
    assert lost == ["lost"]
    assert log.begin_flush() == []


async def test_a_held_log_is_written_only_when_that_which_it_waits_for_has_ended():
    log, dirty, _ = log_of()
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    log.append(TextDelta("one"))
    log.hold(awaited)
    assert log.begin_flush() == []
    log.append(TextDelta("two"))
    dirty.clear()
    awaited.set_exception(RuntimeError("it went wrong"))
    await asyncio.sleep(0)
    assert dirty == [True], "the writer was told"
    assert log.begin_flush() == [TextDelta("onetwo")]


async def test_a_writer_that_finds_nothing_is_not_waited_for():
    log, _, _ = log_of()
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    log.hold(awaited)
    awaited.set_result(None)
    await asyncio.sleep(0)
    assert log.begin_flush() == []
    async with asyncio.timeout(5):
        assert await log.close() == []


async def test_a_held_log_is_closed_only_when_that_which_it_waits_for_has_ended():
    log, _, _ = log_of()
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    log.hold(awaited)
    log.append(TextDelta("one"))
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    assert not closing.done()
    awaited.set_result(None)
    assert await closing == [TextDelta("one")]
