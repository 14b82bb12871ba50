"""Who may run: so many at once, the others in the order in which they came, but nobody keeps those waiting who wait."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_Turn = asyncio.Future[bool]
"""Of one who waits: whether the turn has come with a place, or without one in a hurry."""


class Hurry:
    """Set as soon as somebody who has a place waits for this one: it then needs none of its own.

    Otherwise scripts that have all the places could wait for ever for scripts that have none.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._turns: list[_Turn] = []

    def set(self) -> None:
        """Let it begin, now and whenever it asks."""
        self.is_set = True
        for turn in self._turns:
            if not turn.done():
                turn.set_result(False)

    def hurry_up(self, turn: _Turn) -> None:
        """For the places: this is what waits."""
        self._turns.append(turn)


class Places:
    """A number of places."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._queue: deque[_Turn] = deque()

    @property
    def state(self) -> dict[str, int]:
        """How many are in use, how many wait for one, and how many there are."""
        waiting = sum(not turn.done() for turn in self._queue)
        return {"in_use": self._count - self._free, "waiting": waiting, "limit": self._count}

    @asynccontextmanager
    async def taken(self, hurry: Hurry | None = None) -> AsyncGenerator[None, None]:
        """A place, for as long as the context lasts; waits for it, unless there is a hurry."""
        has_place = await self._take(hurry or Hurry())
        try:
            yield
        finally:
            if has_place:
                self._leave()

    async def _take(self, hurry: Hurry) -> bool:
        """Whether a place was taken; False if in the hurry none is needed."""
        if hurry.is_set:
            return False
        if self._free > 0:
            self._free -= 1
            return True
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        hurry.hurry_up(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._leave()  # it was given just now, and nobody is there to take it
            raise

    def _leave(self) -> None:
        """Give the place to who has waited longest, or keep it for who comes."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1
