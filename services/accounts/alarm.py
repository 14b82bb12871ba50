"""Tells every replica at once that a right was taken away somewhere."""

import asyncio
import logging
from contextlib import suppress

from db.errors import DatabaseError
from db.stores.rights import RightsStore

_log = logging.getLogger(__name__)


class Alarm:
    """Says no more than that it is time to look; whoever does not hear it looks soon all the same."""

    def __init__(self, store: RightsStore) -> None:
        self._store = store
        self._heard = asyncio.Event()

    async def sound(self) -> None:
        """Have every replica look now. To be called when it is committed that something is revoked."""
        self._heard.set()
        try:
            await self._store.announce()
        except DatabaseError:
            _log.debug("the other replicas will see for themselves what was revoked", exc_info=True)

    def heard(self, _payload: str = "") -> None:
        """Another replica has sounded it."""
        self._heard.set()

    async def wait(self, seconds: float) -> None:
        """Return when it sounds, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        self._heard.clear()
