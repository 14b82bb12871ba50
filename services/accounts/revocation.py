"""What happens when a right is taken away: what was opened by it is closed, and what was begun by it ends.

Every replica looks for itself, every two seconds and whenever somebody tells it to: a message that is lost costs two
seconds, not the promise. While the database is away nothing is closed, as nothing can be known; it is looked again as
soon as it is back.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Final
from uuid import UUID

from db.errors import DatabaseError
from db.ids import SessionId
from db.stores.rights import RevokedRecord, RightsStore
from services.accounts.alarm import Alarm
from services.accounts.rights import RightsInUse
from services.accounts.tickets import Tickets
from services.runs.active import ActiveRun
from services.runs.afterwork import Afterwork, PostWork
from services.runs.engine import RunEngine

_log = logging.getLogger(__name__)

REVOKED: Final = "revoked"
"""Who stopped a run, where nobody did but its right was taken away."""

_LOOK_SECONDS = 2.0
"""With what it takes to look and to stop, well within the promised five."""
_LONGEST_LOOK = 10.0
"""A database that takes longer is as good as away."""
_SESSIONS_AT_ONCE = 8
_SWEEP_EVERY = 60
"""So many looks are between two sweeps of old tickets."""


class Revocations:
    """Takes back what was opened and begun here by rights that are none any more."""

    def __init__(
        self,
        *,
        store: RightsStore,
        rights: RightsInUse,
        engine: RunEngine,
        afterwork: Afterwork,
        tickets: Tickets,
        alarm: Alarm,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._store = store
        self._rights = rights
        self._engine = engine
        self._afterwork = afterwork
        self._tickets = tickets
        self._alarm = alarm
        self._look_seconds = look_seconds
        self._is_blind = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Look from here on; on leaving nothing of it is left."""
        watching = asyncio.create_task(self._watch(), name="looking for revoked rights")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def look(self) -> None:
        """Look once, and take back whatever is to be taken back. Raises `DatabaseError`."""
        begun_by = {work.record.credential_id for work in self._under_way()}
        shown = {credential_id for credential_id in self._rights.credential_ids | begun_by if credential_id}
        async with asyncio.timeout(_LONGEST_LOOK):
            revoked = await self._store.revoked(list(shown))
        if not revoked:
            return
        gone = {item.id for item in revoked if item.kind == "credential"}
        if closed := self._rights.end(gone):
            _log.info("%d sockets and streams were closed: what opened them was revoked", closed)
        await self._stop([item for item in revoked if item.session_id is not None])
        self._let_go(gone, {item.id for item in revoked})

    async def _watch(self) -> None:
        looks = 0
        while True:
            await self._look_or_wait()
            looks += 1
            if looks % _SWEEP_EVERY == 0:
                with suppress(DatabaseError):
                    await self._tickets.sweep()
            await self._alarm.wait(self._look_seconds)

    async def _look_or_wait(self) -> None:
        try:
            await self.look()
        except (DatabaseError, TimeoutError) as error:
            if not self._is_blind:
                _log.warning("revoked rights are not seen while the database is away: %s", error)
            self._is_blind = True
        except Exception:  # noqa: BLE001 - without this task no right would ever end
            _log.exception("looking for revoked rights failed")
        else:
            if self._is_blind:
                _log.info("revoked rights are seen again")
            self._is_blind = False

    async def _stop(self, work: Sequence[RevokedRecord]) -> None:
        """Stop what has no right to go on, session by session; what is done elsewhere is stopped there."""
        here = {work.record.id for work in self._under_way()}
        room = asyncio.Semaphore(_SESSIONS_AT_ONCE)

        async def stop(session_id: SessionId, items: Sequence[RevokedRecord]) -> None:
            async with room:
                try:
                    # What waits is cancelled first, the newest of it at first: what ends must not start the next.
                    for item in items:
                        if item.kind == "queued" or (item.kind == "running" and item.run_id in here):
                            await self._engine.interrupt(session_id, item.run_id, REVOKED)
                        elif item.kind == "waiting" or (item.kind == "working" and item.run_id in here):
                            await self._afterwork.interrupt(session_id, item.run_id, REVOKED)
                except DatabaseError:
                    _log.warning("what runs in session %s is stopped at the next look", session_id, exc_info=True)

        async with asyncio.TaskGroup() as group:
            for session_id, items in groupby(work, lambda item: item.session_id):
                if session_id is not None:
                    group.create_task(stop(session_id, list(items)))

    def _let_go(self, gone: Collection[UUID], known: Collection[UUID]) -> None:
        """Leave without a word what is still done here for users of whom not even the rows are left."""
        for work in self._under_way():
            if work.record.credential_id in gone and work.record.id not in known:
                work.lose()

    def _under_way(self) -> list[ActiveRun | PostWork]:
        return [*self._engine.performing, *self._afterwork.working]
