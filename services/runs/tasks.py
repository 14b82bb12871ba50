"""Waiting for tasks, whatever becomes of the one that waits."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def whatever_happens(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, waited for even if the waiting task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone, a few seconds at most."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=5)


async def until_all_have_ended(tasks: set[asyncio.Task[None]], seconds: float, hurry: asyncio.Event) -> None:
    """Return when the set is empty, whose tasks leave it as they end; after so many seconds; or when `hurry` is set."""
    hurried = asyncio.create_task(hurry.wait())
    try:
        async with asyncio.timeout(seconds):
            while tasks and not hurried.done():
                await asyncio.wait({hurried, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass
    finally:
        hurried.cancel()
