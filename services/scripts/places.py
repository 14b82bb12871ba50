"""Who may run: so many at once, the others in the order in which they came, but nobody keeps those waiting who wait."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Hurry(asyncio.Event):
    """Set as soon as somebody who has a place waits for this one: it then needs none of its own.

    Otherwise scripts that have all the places could wait for ever for scripts that have none.
    """


class Places:
    """A number of places."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def taken(self, hurry: Hurry | None = None) -> AsyncGenerator[None, None]:
        """A place, for as long as the context lasts; waits for it, unless there is a hurry."""
        is_taken = await self._take(hurry or Hurry())
        try:
            yield
        finally:
            if is_taken:
                self._free.release()

    async def _take(self, hurry: Hurry) -> bool:
        """Whether a place was taken; False if in the hurry none is needed."""
        if hurry.is_set():
            return False
        if not self._free.locked():
            return await self._free.acquire()
        taking, hurrying = asyncio.create_task(self._free.acquire()), asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait([taking, hurrying], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if await _ended(taking):
                self._free.release()
            raise
        finally:
            hurrying.cancel()
        return await _ended(taking)


async def _ended(taking: "asyncio.Task[bool]") -> bool:
    """Whether it had taken a place; it takes none any more."""
    taking.cancel()
    await asyncio.wait([taking])
    return not taking.cancelled()
