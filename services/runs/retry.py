"""Waiting for the database."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from db.errors import DatabaseUnavailable, WriteConflict

_log = logging.getLogger(__name__)

_SLOWEST = 1.0

T = TypeVar("T")


async def until_answered(write: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
    """The result of `write`, done again while the database is away; for ever if `attempts` is None.

    `write` may have been committed although it raised, so doing it twice must be the same as doing it once.
    """
    attempt = 0
    while True:
        try:
            return await write()
        except (DatabaseUnavailable, WriteConflict) as error:
            attempt += 1
            if attempt == attempts:
                raise
            _log.warning("waiting for the database: %s", error)
            await pause(attempt)


async def pause(attempt: int) -> None:
    """Wait before another attempt: 20 ms at first, then twice as long each time, a second at most."""
    await asyncio.sleep(min(_SLOWEST, 0.02 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
