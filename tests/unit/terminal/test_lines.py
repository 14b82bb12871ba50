"""Lines that a person types."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from terminal.lines import Lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_a_line_is_read_though_reading_was_given_up_in_the_same_moment(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = Lines(reading)
    given_up = asyncio.create_task(lines.next())
    await asyncio.sleep(0)  # it waits now

    given_up.cancel()
    asyncio.get_running_loop().call_soon(os.write, writing, b"And now?\n")
    async with asyncio.timeout(5):
        assert await lines.next() == "And now?"
    assert given_up.cancelled()
