"""The time until the service goes down, for work that somebody waits for and nobody goes on with."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from services.errors import ShuttingDown


class OpenHours:
    """Work is done within `until_closed`; `close` ends it."""

    def __init__(self) -> None:
        self._working: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def close(self) -> None:
        """End what is being done, and begin nothing more; whoever waits for it is told `ShuttingDown`."""
        self._is_closed = True
        for task in self._working:
            task.cancel()

    @asynccontextmanager
    async def until_closed(self) -> AsyncGenerator[None, None]:
        """The time until `close`, which ends what is within. Raises `ShuttingDown`."""
        if self._is_closed:
            raise ShuttingDown
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        try:
            yield
        except asyncio.CancelledError:
            # Somebody else may have cancelled it too.
            if self._is_closed and task.uncancel() == 0:
                raise ShuttingDown from None
            raise
        finally:
            self._working.discard(task)
