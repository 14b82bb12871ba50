"""Places are taken in order, given back in every case, and not needed by who is waited for."""

import asyncio
import random

import pytest

from services.scripts.places import Hurry, Places


class Visitors:
    """They come, stay until they are sent away, and note who is there."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.inside: list[str] = []
        self.leave = {name: asyncio.Event() for name in "abcdefgh"}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, names: str, hurry: Hurry | None = None) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._visit(name, hurry))
        await settled()

    async def go(self, name: str) -> None:
        self.leave[name].set()
        await settled()

    async def _visit(self, name: str, hurry: Hurry | None) -> None:
        async with self.places.taken(hurry):
            self.inside.append(name)
            try:
                await self.leave[name].wait()
            finally:
                self.inside.remove(name)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_taken_in_the_order_in_which_they_are_asked_for() -> None:
    visitors = Visitors(Places(2))
    await visitors.come("abcd")
    assert visitors.inside == ["a", "b"]
    await visitors.go("b")
    assert visitors.inside == ["a", "c"]
    await visitors.go("a")
    assert visitors.inside == ["c", "d"]


@pytest.mark.parametrize("is_late", [False, True])
async def test_who_is_in_a_hurry_needs_no_place_and_leaves_none(is_late: bool) -> None:
    visitors, hurry = Visitors(Places(1)), Hurry()
    if not is_late:
        hurry.set()
    await visitors.come("a")
    await visitors.come("b", hurry)
    await visitors.come("c")
    hurry.set()
    await settled()
    assert visitors.inside == ["a", "b"]
    await visitors.go("b")
    assert visitors.inside == ["a"], "the place of b would be one too many"
    await visitors.go("a")
    assert visitors.inside == ["c"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_place_that_is_given_to_who_has_just_given_up_goes_to_the_next(times: int) -> None:
    visitors = Visitors(Places(1))
    await visitors.come("abc")
    visitors.leave["a"].set()
    await asyncio.sleep(0)
    for _ in range(times):
        visitors.tasks["b"].cancel()
    await settled()
    assert visitors.inside == ["c"]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_no_place_is_lost_or_made(seed: int) -> None:
    chance = random.Random(seed)
    places = Places(3)
    inside = 0
    most = 0

    async def visit() -> None:
        nonlocal inside, most
        async with places.taken():
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside -= 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(visit()))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (inside, most) == (0, 3)
    visitors = Visitors(places)
    await visitors.come("abcd")
    assert visitors.inside == ["a", "b", "c"]
    for task in visitors.tasks.values():
        task.cancel()
    await asyncio.gather(*visitors.tasks.values(), return_exceptions=True)
