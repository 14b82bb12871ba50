"""How long a run may take: what it waits for somebody's word is not counted."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class RunClock:
    """Holds a run's time limit while it is paused."""

    def __init__(self) -> None:
        self.waiting = 0
        """How many calls wait for somebody's word."""
        self._limit: asyncio.Timeout | None = None
        self._left: float | None = None

    def start(self, limit: asyncio.Timeout) -> None:
        """Take the limit that has just begun to run."""
        self._limit = limit

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Count no time while this is entered, by one or several calls."""
        if self.waiting == 0:
            self._hold()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if self.waiting == 0:
                self._go_on()

    def _hold(self) -> None:
        limit = self._limit
        if limit is not None and not limit.expired() and (when := limit.when()) is not None:
            self._left = when - asyncio.get_running_loop().time()
            limit.reschedule(None)

    def _go_on(self) -> None:
        if self._limit is not None and self._left is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._left)
        self._left = None
