"""Waking the runs of this replica that wait for somebody's word."""

import asyncio
from uuid import UUID

from db.ids import RunId


class Decisions:
    """One wake-up per run; a lost one is made good by looking again."""

    def __init__(self) -> None:
        self._next: dict[RunId, asyncio.Future[None]] = {}

    def news(self, run_id: RunId) -> "asyncio.Future[None]":
        """Is done at the next word about a call of the run. To be asked for before looking, so that none is missed."""
        future = self._next.get(run_id)
        if future is None:
            future = self._next[run_id] = asyncio.get_running_loop().create_future()
        return future

    def tell(self, run_id: RunId) -> bool:
        """Wake the run if it waits here; False if it does not."""
        future = self._next.pop(run_id, None)
        if future is not None and not future.done():
            future.set_result(None)
        return future is not None

    def forget(self, run_id: RunId) -> None:
        """Nothing of the run waits any more."""
        self._next.pop(run_id, None)

    def heard(self, payload: str) -> None:
        """Another replica was given the word."""
        self.tell(RunId(UUID(payload)))
