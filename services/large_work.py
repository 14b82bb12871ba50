"""Work on documents so large that the interpreter itself would stop everybody for it."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class LargeWork:
    """One piece of such work at a time, so that two of them do not take twice the memory.

    Meanwhile nobody looks for objects that only hold each other: with hundreds of thousands of new ones, each look
    takes half a second in which no thread runs, and finds nothing, because what a document becomes has no cycles.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """For as long as the work lasts; waits for that of others."""
        async with self._turn:
            gc.disable()
            try:
                yield
            finally:
                gc.enable()


def settle() -> None:
    """What is there now is there for good: the interpreter need not look through it again and again.

    To be called once, before anybody is served: what a service has loaded at its start are half a million objects.
    """
    gc.collect()
    gc.freeze()
