"""What is shown can be stored."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.providers.text import TextCleaner, clean_text

# Everything that JSON can carry, with the troublesome characters made frequent.
anything = st.text(st.sampled_from("a\0é😀\ud83d\ude00\udfff\ud800 ")) | st.text(
    st.characters(exclude_categories=()), max_size=20
)


def cleaned(pieces: list[str]) -> str:
    cleaner = TextCleaner()
    return "".join([cleaner.feed(piece) for piece in pieces] + [cleaner.end()])


@given(st.lists(anything))
@example(["\ud83d", "", "\ude00"])
def test_cleaned_text_does_not_depend_on_where_it_was_cut(pieces: list[str]) -> None:
    assert cleaned(pieces) == clean_text("".join(pieces))


@given(anything)
def test_cleaned_text_is_utf8_without_nul(text: str) -> None:
    assert b"\0" not in clean_text(text).encode()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_good_text_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == text
    assert cleaned(list(text)) == text


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00"], "\ufffd"),
        (["\ud83da"], "\ufffda"),
        (["a\0b"], "a\ufffdb"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_halves_are_joined_and_the_rest_replaced(pieces: list[str], expected: str) -> None:
    assert cleaned(pieces) == expected
