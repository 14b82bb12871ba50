"""Only waits for the server are limited, and nobody else's cancellation is swallowed."""

import asyncio

import pytest

from services.errors import ProviderTimeout
from services.providers.patience import Patience


async def test_a_wait_that_lasts_too_long_is_a_timeout() -> None:
    with pytest.raises(ProviderTimeout, match=r"a word within 0\.02 seconds"), Patience(0.02, "a word"):
        await asyncio.Event().wait()


async def test_at_rest_the_clock_stands_still() -> None:
    with Patience(0.02, "a word") as patience:
        patience.rest()
        await asyncio.sleep(0.06)
        patience.wait()
        await asyncio.sleep(0)


async def test_many_short_waits_are_no_long_one() -> None:
    with Patience(0.05, "a word") as patience:
        for _ in range(10):
            await asyncio.sleep(0.01)
            patience.rest()
            patience.wait()


async def test_a_wait_that_goes_on_is_one_long_one() -> None:
    async def read() -> None:
        with Patience(0.05, "a word") as patience:
            for _ in range(100):
                await asyncio.sleep(0.01)
                patience.rest()
                patience.wait(anew=False)

    with pytest.raises(ProviderTimeout):
        await read()


async def test_a_shorter_limit_counts_from_the_next_wait() -> None:
    async def read() -> None:
        with Patience(60, "a word") as patience:
            patience.rest()
            patience.change(0.02, "more")
            patience.wait()
            await asyncio.Event().wait()

    with pytest.raises(ProviderTimeout, match="more"):
        await asyncio.wait_for(read(), 5)


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def read() -> None:
        with Patience(60, "a word"):
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_in_the_same_moment_as_the_timeout_goes_first() -> None:
    async def read() -> None:
        with Patience(0.02, "a word"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(read())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_timeout_the_task_is_not_left_cancelled() -> None:
    with pytest.raises(ProviderTimeout), Patience(0.01, "a word"):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_it_works_inside_another_timeout() -> None:
    async def read() -> None:
        with Patience(60, "a word"):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.02)
