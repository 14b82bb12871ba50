"""Waiting in tests: for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], object | Awaitable[object]], seconds: float = 5.0) -> None:
    """Return as soon as `condition`, a function or coroutine function, is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            name = getattr(condition, "__name__", condition)
            raise AssertionError(f"still not true after {seconds} s: {name}")
        await asyncio.sleep(0.01)
