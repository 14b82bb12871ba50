"""Ids sort by the time at which they were made."""

import time
from uuid import UUID

from db.ids import LOCAL_OWNER, new_id


def test_an_id_is_a_uuid_of_version_7():
    for _ in range(100):
        made = new_id()
        assert made.version == 7
        assert made.variant == "specified in RFC 4122"
        assert UUID(str(made)) == made


def test_an_id_carries_the_millisecond_in_which_it_was_made():
    before = time.time_ns() // 1_000_000
    made = new_id().int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_later_ids_sort_after_earlier_ones():
    earlier: list[UUID] = []
    for _ in range(20):
        earlier.append(new_id())
        moment = time.time_ns() + 2_000  # the clock that ids are made of counts in quarter microseconds
        while time.time_ns() < moment:
            pass
    assert earlier == sorted(earlier)


def test_many_ids_of_one_moment_differ():
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_the_local_owner_is_older_than_everything():
    assert new_id() > LOCAL_OWNER
