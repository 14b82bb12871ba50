"""What was read before is at hand, as far as there is room, and never out of date."""

from hypothesis import given
from hypothesis import strategies as st

from services.prompt.shelf import Newest

MOST = 10


def test_what_was_used_last_stays_and_the_rest_goes():
    newest: Newest[str, int] = Newest(MOST)
    newest.put("a", 1, 4)
    newest.put("b", 2, 4)
    assert newest.get("a") == 1
    newest.put("c", 3, 4)
    assert [newest.get(key) for key in "abc"] == [1, None, 3]


def test_what_is_heavier_than_all_room_is_given_back_but_not_kept():
    newest: Newest[str, int] = Newest(MOST)
    newest.put("a", 1, 4)
    assert newest.put("b", 2, MOST + 1) == 2
    assert newest.get("b") is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, MOST + 2))))
def test_however_it_is_used_it_holds_the_newest_that_fit(puts: list[tuple[str, int]]):
    newest: Newest[str, int] = Newest(MOST)
    for number, (key, weight) in enumerate(puts):
        newest.put(key, number, weight)
    last = {key: (number, weight) for number, (key, weight) in enumerate(puts)}
    kept = {key: found for key in "abcdef" if (found := newest.get(key)) is not None}
    assert all(last[key][0] == number for key, number in kept.items())
    assert sum(last[key][1] for key in kept) <= MOST
