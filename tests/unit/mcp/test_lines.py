"""Lines come out whole, however the stream was cut; what is too long leaves only its ends."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.mcp.lines import LineSplitter, TooLong


def fed(stream: bytes, cuts: list[int], longest: int) -> list[bytes | TooLong]:
    splitter = LineSplitter(longest)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(places)]
    return [line for chunk in chunks for line in splitter.feed(chunk)]


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 500)))
def test_lines_do_not_depend_on_where_the_stream_was_cut(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)

    assert fed(stream, cuts, longest=20) == lines


@given(st.integers(1, 5_000), st.lists(st.integers(0, 10_000)))
def test_a_line_that_is_too_long_leaves_its_ends_and_no_harm(size: int, cuts: list[int]) -> None:
    line = bytes(97 + at % 26 for at in range(size))

    first, second, third = fed(b"before\n" + line + b"\nafter\n", cuts, longest=100)

    assert (first, third) == (b"before", b"after")
    if size <= 100:
        assert second == line
    else:
        assert isinstance(second, TooLong)
        assert second.size == size
        assert line.startswith(second.head)
        assert line.endswith(second.tail)
        assert min(len(second.head), len(second.tail)) >= min(size, 100) // 2


def test_what_has_not_ended_is_no_line_yet() -> None:
    splitter = LineSplitter(100)

    assert list(splitter.feed(b"one\ntwo")) == [b"one"]
    assert list(splitter.feed(b"\n")) == [b"two"]
