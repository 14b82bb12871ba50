"""What people type into a search box, and what they are shown of what was found."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.search import OR, Term, excerpt, parse


@pytest.mark.parametrize(
    ("q", "terms"),
    [
        ("ship", [Term("ship", is_prefix=True)]),
        ("ship ", [Term("ship")]),
        ("old ship", [Term("old"), Term("ship", is_prefix=True)]),
        ("a", [Term("a")]),
        ('"old ship"', [Term("old ship")]),
        ('"old ship', [Term("old ship", is_prefix=True)]),
        ("sh* sail ", [Term("sh", is_prefix=True), Term("sail")]),
        ("ship -boat", [Term("ship"), Term("boat", is_unwanted=True)]),
        ('ship -"old boat"', [Term("ship"), Term("old boat", is_unwanted=True)]),
        ("ship OR boat", [Term("ship"), OR, Term("boat")]),
        ("sh* or boat", [Term("sh"), OR, Term("boat")]),
        ("-- ++ ship", [Term("ship", is_prefix=True)]),
        ("C++", [Term("C++")]),
        ("++", [Term("++")]),
        ("   ", []),
    ],
)
def test_a_query_is_read_as_it_is_meant(q: str, terms: list[Term]):
    assert parse(q) == terms


def test_too_many_words_are_refused():
    with pytest.raises(InvalidRequest):
        parse("word " * 21)


@given(st.text(max_size=200) | st.text("\"-*or '\\&|!():<> ab", max_size=60))
def test_any_query_is_read(q: str):
    try:
        terms = parse(q)
    except InvalidRequest:
        return
    assert all(term.text for term in terms)
    assert bool(terms) == bool(q.strip())


@given(st.text(max_size=600), st.text(min_size=1, max_size=10))
def test_an_excerpt_is_a_part_of_the_text_with_the_matches_marked(content: str, sought: str):
    pieces = excerpt(content, re.compile(re.escape(sought), re.IGNORECASE))
    shown = "".join(piece.text for piece in pieces)
    assert shown.removeprefix("…").removesuffix("…").strip("…") in content
    assert len(shown) <= 60 + 180 + 2
    assert all(piece.text.casefold() == sought.casefold() for piece in pieces if piece.is_match and sought.isascii())


def test_an_excerpt_shows_where_it_was_found():
    content = "x" * 300 + " A ship. " + "y" * 300
    pieces = excerpt(content, re.compile(r"\bship\b", re.IGNORECASE))
    assert [piece.text for piece in pieces if piece.is_match] == ["ship"]
    assert pieces[0].text.startswith("…x")
    assert pieces[-1].text.endswith("y…")
