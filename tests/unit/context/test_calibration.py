"""What is learned from what a model's server says it has counted."""

from hypothesis import given
from hypothesis import strategies as st

from services.context.calibration import HIGHEST, learned
from services.context.room import Room


def test_server_that_counts_more_is_believed_at_once_and_forgotten_slowly():
    grown = learned(1.0, 1000, 1300)
    assert grown == 1.3
    assert 1.25 < learned(grown, 1000, 1000) < grown


def test_server_that_counts_less_gives_no_more_room_than_our_own_count():
    assert learned(1.0, 1000, 600) == 1.0


def test_what_is_said_of_a_short_request_is_not_believed():
    assert learned(1.2, 20, 400) == 1.2
    assert learned(1.2, 1000, 0) == 1.2


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-10, 10**9)), max_size=20))
def test_no_server_can_move_it_beyond_its_bounds(reports: list[tuple[int, int]]):
    factor = 1.0
    for counted, reported in reports:
        factor = learned(factor, counted, reported)
        assert 1.0 <= factor <= HIGHEST


@given(st.integers(1, 10**6), st.integers(0, 10**5), st.floats(1.0, HIGHEST))
def test_what_fits_as_we_count_fits_as_the_server_does(limit: int, reserve: int, factor: float):
    room = Room.calibrated(limit, reserve, prompt=0, tools=0, compact_at=0.8, factor=factor)
    assert room.told(room.limit) <= limit
    assert room.told(room.threshold) <= limit
