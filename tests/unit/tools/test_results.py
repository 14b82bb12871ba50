"""A long result is given in pieces that fit and that together are the whole."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.context.tokens import TokenCounter
from services.tools.results import ResultCutter

TOKENS = TokenCounter()
_NEXT = re.compile(
    r'\n\n\[Shortened: characters (\d+) to (\d+) of (\d+)\. Go on with read_tool_result\(id="c", '
    r"offset=(\d+)\)\.\]$"
)


async def test_what_fits_is_given_as_it_is():
    text = "word " * 100
    assert await ResultCutter(TOKENS, budget=200).cut(text, "c") == text


@settings(max_examples=25)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300),
    st.integers(1, 60),
    st.integers(120, 400),
)
async def test_reading_on_gives_all_of_it_and_no_piece_is_too_long(seed: str, times: int, budget: int):
    text, cutter = seed * times, ResultCutter(TOKENS, budget=budget)
    read, offset = "", 0
    while True:
        piece = await cutter.cut(text[offset : offset + 5_000], "c", offset=offset, whole=len(text))
        assert await TOKENS.count(piece) <= budget
        found = _NEXT.search(piece)
        if found is None:
            read += piece
            break
        begin, end, whole, following = map(int, found.groups())
        assert (begin, whole, following) == (offset, len(text), end)
        assert end > offset, "it would never end"
        read += piece[: found.start()]
        offset = end
    assert read == text


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 300_000, "\n" * 300_000, "日本" * 100_000])
async def test_monotonous_text_is_cut_like_any_other(text: str):
    piece = await ResultCutter(TOKENS, budget=500).cut(text, "c")
    assert await TOKENS.count(piece) <= 500
    assert "[Shortened: characters 0 to " in piece
