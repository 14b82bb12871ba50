"""Throws away bytes that belong to no file: what a crash or a deleted session left behind."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from db.errors import DatabaseError
from db.stores.files import FileStore
from services.files.vault import Vault

_log = logging.getLogger(__name__)

_EVERY = 3600.0
_AT_ONCE = 1_000


class Sweeper:
    """Looks through the vault now and then. `running` owns the task."""

    def __init__(self, files: FileStore, vault: Vault, *, older_than: float = 3600.0) -> None:
        """What is younger than `older_than` seconds may still be on its way to become a file."""
        self._files = files
        self._vault = vault
        self._older_than = older_than

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Sweep at once, and every hour."""
        sweeping = asyncio.create_task(self._keep_clean())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def sweep(self) -> int:
        """Throw away what belongs to no file; returns how much that was."""
        kept = iter(await self._vault.kept(older_than=self._older_than))
        count = 0
        while ids := list(itertools.islice(kept, _AT_ONCE)):
            orphans = await self._files.unknown_among(ids)
            await self._vault.remove(*orphans)
            count += len(orphans)
        return count

    async def _keep_clean(self) -> None:
        while True:
            try:
                if count := await self.sweep():
                    _log.info("%d files were thrown away that belonged to nobody", count)
            except (DatabaseError, OSError) as error:
                _log.warning("could not look for bytes that belong to nobody: %s", error)
            await asyncio.sleep(_EVERY)
