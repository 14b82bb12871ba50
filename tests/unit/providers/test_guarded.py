"""What a server that nobody vouches for can do to those who are asked nothing of it."""

import asyncio
from collections.abc import AsyncIterator

from services.providers.guarded import bounded


async def test_others_have_their_turn_while_a_stream_comes_faster_than_any_model_speaks() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def flood() -> AsyncIterator[bytes]:
        yield (b": %s\n\n" % (b"x" * 400)) * 300

    others = asyncio.create_task(take_turns())
    seen: list[int] = []
    read = b""
    async for piece in bounded(flood(), {}, (b"\n\n",)):
        read += piece
        seen.append(turns)
    others.cancel()

    assert read == (b": %s\n\n" % (b"x" * 400)) * 300
    assert len(seen) > 5
    assert sorted(set(seen)) == seen, "between any two pieces somebody else was served"


async def test_what_is_read_as_a_whole_is_not_held_up() -> None:
    async def all_at_once() -> AsyncIterator[bytes]:
        yield b"\n" * 1_000_000

    assert [len(piece) async for piece in bounded(all_at_once(), {}, ())] == [1_000_000]
