"""A run's time limit stands still while it waits for somebody's word."""

import asyncio

import pytest

from services.runs.clock import RunClock


async def passed(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await asyncio.sleep(0.005)


async def test_a_pause_does_not_count_and_the_rest_does():
    clock = RunClock()
    got_through = False

    async def pause_and_wait() -> None:
        nonlocal got_through
        async with asyncio.timeout(0.1) as limit:
            clock.start(limit)
            with clock.paused():
                await passed(0.2)
            got_through = True
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await pause_and_wait()
    assert got_through


async def test_it_stands_until_the_last_of_several_pauses_is_over():
    clock = RunClock()
    async with asyncio.timeout(10) as limit:
        clock.start(limit)
        with clock.paused():
            with clock.paused():
                assert (clock.waiting, limit.when()) == (2, None)
            assert (clock.waiting, limit.when()) == (1, None)
        assert clock.waiting == 0
        assert limit.when() is not None


async def test_a_clock_that_was_never_started_can_be_paused():
    clock = RunClock()
    with clock.paused():
        assert clock.waiting == 1
    assert clock.waiting == 0


async def test_a_pause_that_is_broken_off_lets_the_time_go_on():
    clock = RunClock()
    async with asyncio.timeout(10) as limit:
        clock.start(limit)
        with pytest.raises(KeyError), clock.paused():
            raise KeyError
        assert limit.when() is not None
