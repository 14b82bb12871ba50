"""How punctual the event loop is: whatever keeps it busy for long keeps everybody waiting."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import Histogram

_EVERY = 0.05
_REMEMBERED = int(60 / _EVERY)


class LoopLag:
    """Looks at the clock twenty times a second. `running` owns the task."""

    def __init__(self, lag: Histogram) -> None:
        self._lag = lag
        self._newest: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def worst(self) -> float:
        """The longest of the last minute, in seconds."""
        return max(self._newest, default=0.0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Look from here on."""
        looking = asyncio.create_task(self._look(), name="event loop lag")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_EVERY)
            late = max(0.0, time.monotonic() - begun - _EVERY)
            self._lag.observe(late)
            self._newest.append(late)
