"""Keys know themselves: a slip of the pen is seen without asking anybody."""

import string

from hypothesis import given
from hypothesis import strategies as st

from services.accounts.api_keys import PREFIX, is_key, new_key

LETTERS = string.ascii_letters + string.digits


def test_a_new_key_is_one_and_no_two_are_the_same():
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(is_key(key) and key.startswith(PREFIX) and key.isascii() for key in keys)
    assert len({len(key) for key in keys}) == 1


@given(st.integers(0, 52), st.sampled_from(LETTERS + "_- \0é"))
def test_one_wrong_character_makes_it_none(position: int, character: str):
    key = new_key()
    changed = key[:position] + character + key[position + 1 :]
    assert is_key(changed) == (changed == key)


@given(st.integers(0, 51))
def test_two_neighbours_that_have_changed_places_make_it_none(position: int):
    key = new_key()
    changed = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    assert is_key(changed) == (changed == key)


@given(st.text())
def test_nothing_else_is_a_key(text: str):
    assert not is_key(text)
    assert not is_key(PREFIX + text)


def test_what_stands_around_a_key_is_not_overlooked():
    key = new_key()
    for text in (f" {key}", f"{key}\n", f"Bearer {key}", key[1:], key[:-1], key.upper()):
        assert not is_key(text)
