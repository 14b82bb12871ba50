"""What can be relied on when tokens are counted."""

import asyncio
import gzip
import lzma
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from services.context.tokens import (
    CUT_ALLOWANCE,
    MESSAGE_OVERHEAD,
    PATTERN,
    RANKS,
    SLICE_CHARACTERS,
    RanksDamaged,
    TokenCounter,
    count_tokens,
    read_encoding,
    sliced,
)


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return read_encoding(RANKS)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("counting asked for a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


async def test_counts_without_a_network(no_network: None):
    counter = TokenCounter()
    assert await counter.count("hello world") == 2
    assert await counter.count("") == 0
    assert await counter.count_message("hello world") == 2 + MESSAGE_OVERHEAD


async def test_text_that_looks_like_a_special_token_is_text():
    assert await TokenCounter().count("<|endoftext|>") > 1


async def test_lone_surrogates_are_counted():
    assert await TokenCounter().count("a\ud800b") > 0


async def test_counts_that_come_at_once_share_one_reading_of_the_ranks():
    counter = TokenCounter()
    counts = await asyncio.gather(*(counter.count("hello world") for _ in range(20)), counter.load())
    assert counts[:-1] == [2] * 20
    encoding = counter._encoding
    await counter.load()
    assert counter._encoding is encoding


async def test_count_after_a_cancelled_one_still_works():
    counter = TokenCounter()
    impatient = asyncio.create_task(counter.count("hello"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await counter.count("hello") == 1


async def test_event_loop_goes_on_while_a_long_text_is_counted():
    counter = TokenCounter()
    await counter.load()
    counting = asyncio.create_task(counter.count("some words and 'quotes'\n" * 100_000))
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert await counting > 400_000


@pytest.mark.parametrize(
    "damaged",
    [b"", b"not compressed", lzma.compress(b"YQ== 0\n"), gzip.compress(b"YQ== 0\n", mtime=0)],
    ids=["empty", "plain", "other ranks", "other format"],
)
async def test_damaged_ranks_are_refused(tmp_path: Path, damaged: bytes):
    path = tmp_path / "ranks.xz"
    path.write_bytes(damaged)
    with pytest.raises(RanksDamaged):
        await TokenCounter(path).count("hello")
    with pytest.raises(RanksDamaged):
        await TokenCounter(tmp_path / "missing.xz").load()


def test_words_are_divided_as_the_installed_tiktoken_divides_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    assert tiktoken_ext.openai_public.o200k_base()["pat_str"] == PATTERN


# Slices

TRICKY = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("aA1 9\n\r\t/!-=_'sSt.,\u00a0\u3000\u0301\u4e2d\u3002\uff0c\u00bd\u0e40\u1c80\U0001f642")),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=200,
)


@given(TRICKY, st.integers(1, 50))
def test_slices_together_are_the_text(text: str, size: int):
    pieces = list(sliced(text, size))
    assert "".join(piece for piece, _ in pieces) == text
    assert all(0 < len(piece) <= size for piece, _ in pieces[:-1])
    assert len(pieces[-1][0]) <= size


@given(TRICKY, st.integers(4, 50))
def test_cut_that_claims_to_change_nothing_changes_nothing(encoding: tiktoken.Encoding, text: str, size: int):
    start = 0
    for piece, exact in sliced(text, size):
        cut = start + len(piece)
        if exact:
            whole = encoding.encode_ordinary(text)
            assert encoding.encode_ordinary(text[:cut]) + encoding.encode_ordinary(text[cut:]) == whole
        start = cut


@given(TRICKY, st.integers(1, 50))
def test_count_in_slices_is_never_too_low(encoding: tiktoken.Encoding, text: str, size: int):
    assert count_tokens(encoding, text, size) >= len(encoding.encode_ordinary(text))


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox can't jump 1234567 times.\n" * 2_000,
        'if (x!=null){return{"a":[1,2,3],"b":f(x)}};' * 2_000,
        "\u4e2d\u6587\u5b57\u7b26\uff0c\u6ca1\u6709\u7a7a\u683c\u3002" * 5_000,
        "deadbeef0123456789" * 5_000,
    ],
    ids=["prose", "minified code", "chinese", "hexadecimal"],
)
def test_long_texts_of_ordinary_kinds_are_counted_exactly(encoding: tiktoken.Encoding, text: str):
    assert len(text) > 5 * SLICE_CHARACTERS
    assert count_tokens(encoding, text) == len(encoding.encode_ordinary(text))


@pytest.mark.parametrize("character", ["a", " ", "\n", "=", "\u4e2d", "\U0001f642", "\u0301"])
def test_million_of_one_character_is_counted_in_bounded_time(encoding: tiktoken.Encoding, character: str):
    started = time.perf_counter()
    count = count_tokens(encoding, character * 1_000_000)
    assert time.perf_counter() - started < 10  # tiktoken alone panics on the spaces
    per_slice = len(encoding.encode_ordinary(character * SLICE_CHARACTERS))
    assert count <= (per_slice + CUT_ALLOWANCE) * (1_000_000 // SLICE_CHARACTERS + 1)
