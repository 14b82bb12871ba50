"""What becomes of what a model proposes as a title, or of what somebody wrote first."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.titles import LONGEST, cleaned


@pytest.mark.parametrize(
    ("proposed", "title"),
    [
        ("Ships at Sea", "Ships at Sea"),
        ("\n\n  Ships   at\tSea.  \nAnd more", "Ships at Sea"),
        ('"Ships at Sea"', "Ships at Sea"),
        ("“Ships at Sea.”", "Ships at Sea"),
        ("**Title:** Ships at Sea", "Ships at Sea"),
        ("Titel: Schiffe auf See", "Schiffe auf See"),
        ("# Ships at Sea", "Ships at Sea"),
        ("```python\nprint(1)\n```", "python"),
        ("What is a ship?", "What is a ship?"),
        ("To be continued...", "To be continued..."),
        ("船について", "船について"),
        ("Family \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN} news", "Family \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN} news"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b\0c\x1b[31m", "ab\N{REPLACEMENT CHARACTER}c [31m"),
        ("", ""),
        ("...\n---\n   ", ""),
        ("🙂", ""),
    ],
)
def test_a_title_is_the_first_line_with_words_in_it_and_nothing_around(proposed: str, title: str):
    assert cleaned(proposed) == title


def test_a_long_title_is_cut_between_words():
    title = cleaned("word, " * 50)
    assert len(title) <= LONGEST
    assert title.endswith("word…")
    assert len(cleaned("x" * 500)) == LONGEST


@given(st.text(max_size=300) | st.text("\u202e\u2028\0\n\"'# a1", max_size=60))
def test_whatever_is_proposed_a_title_is_one_short_line_that_can_be_stored(proposed: str):
    title = cleaned(proposed)
    assert len(title) <= LONGEST
    assert len(title.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in title)
    assert not title or any(character.isalnum() for character in title)
