"""Whoever comes back goes on exactly where it was: after a cut, a reload, a restart, on another replica."""

import asyncio
import random
import sys
from collections.abc import Sequence

import pytest

from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database, figures, p95
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.fakes.script import Text, Wait
from tests.waiting import eventually

CLIENTS = 10
PIECES = 80
PACE = 0.02
BREAKS = 3
GENEROUS = 2.0
"""Seconds until the first event after coming back, at the 95th percentile, when the machine has other work too."""


def told(model: Narrator, chance: random.Random, count: int = CLIENTS) -> dict[str, str]:
    """Questions and the whole text that each is answered with."""
    stories: dict[str, str] = {}
    for number in range(count):
        pieces = story(chance, PIECES)
        model.tell(f"story {number}", *at_pace(pieces, PACE))
        stories[f"story {number}"] = "".join(pieces)
    return stories


async def read_some(client: Client, chance: random.Random, run_id: str) -> bool:
    """Take a random number of deltas; False if the reply ended before."""
    last = await client.until("text_delta", "assistant_end", run_id=run_id)
    for _ in range(chance.randrange(PIECES // BREAKS)):
        if last["type"] == "assistant_end":
            break
        last = await client.until("text_delta", "assistant_end", run_id=run_id)
    return last["type"] != "assistant_end"


async def assert_whole(client: Client, run_id: str, text: str) -> None:
    """The reply, as this client has put it together, is the provider's to the byte."""
    if not any(event["type"] == "assistant_end" for event in client.of_run(run_id)):
        await client.until("assistant_end", run_id=run_id)
    assert client.end(run_id)["finish_reason"] == "stop"
    assert client.text(run_id) == text


def tell_figures(name: str, clients: Sequence[Client]) -> None:
    resumed = [seconds for client in clients for seconds in client.resumed[1:]]  # the first one was no return
    sys.stdout.write(figures(f"first event after {name}", resumed))
    assert p95(resumed) < GENEROUS


@pytest.mark.parametrize("way", ["cut", "reload", "another replica"])
async def test_a_broken_reader_puts_the_same_text_together(
    way: str, database_url: str, model: Narrator, start: StartService
) -> None:
    first = await start(database_url)
    second = await start(database_url) if way == "another replica" else first
    services = [first, second]
    chance = random.Random(way)
    stories = told(model, chance)

    async def read(client: Client, question: str, chance: random.Random) -> None:
        run_id = await client.ask(question)
        for turn in range(BREAKS):
            if not await read_some(client, chance, run_id):
                break
            await (client.cut() if way == "cut" else client.leave())
            await client.connect(services[(turn + 1) % 2])
        await assert_whole(client, run_id, stories[question])

    async with crowd(first, CLIENTS) as clients:
        async with asyncio.TaskGroup() as group:
            for client, question in zip(clients, stories, strict=True):
                group.create_task(read(client, question, random.Random(chance.random())))
        async with database(database_url) as connection:
            for client in clients:
                await assert_seen_is_stored(connection, client)
        tell_figures(way, clients)
    await assert_nothing_in_progress(database_url, model, *set(services))


async def test_a_restart_is_survived_by_readers_that_are_there_and_by_those_that_were_away(
    database_url: str, model: Narrator, start: StartService
) -> None:
    chance = random.Random(5)
    stories = told(model, chance)
    first = await start(database_url)
    async with crowd(first, CLIENTS) as clients:
        staying, away = clients[: CLIENTS // 2], clients[CLIENTS // 2 :]
        runs = [await client.ask(question) for client, question in zip(clients, stories, strict=True)]
        for client, run_id in zip(clients, runs, strict=True):
            await client.until("text_delta", run_id=run_id)
        for client in away:
            await client.cut()
        first.terminate()
        async with asyncio.timeout(30):
            await asyncio.gather(*(client.read_on() for client in staying))  # replies get the time to end
        await first.ended()
        for client, run_id, text in zip(clients, runs, stories.values(), strict=True):
            if client in staying:
                assert client.close_code == 1001
                assert client.asides[-1]["type"] == "server_shutdown"
                await assert_whole(client, run_id, text)
        second = await start(database_url)
        for client, run_id, text in zip(clients, runs, stories.values(), strict=True):
            await client.connect(second)
            await assert_whole(client, run_id, text)
        tell_figures("a restart", away)
        async with connected(second, clients[0].session_id) as client:
            await client.until("assistant_end")
            await client.ask("and then?")
            await client.until("post_response_complete")
    await assert_nothing_in_progress(database_url, model, second)


async def test_a_reply_that_outlasts_the_restart_ends_with_what_was_shown(
    database_url: str, model: Narrator, start: StartService
) -> None:
    first = await start(database_url, TIMEOUTS__DRAIN=0.5)
    model.tell("a long story", Text("It began "), Text("and "), Wait(asyncio.Event()))
    async with connected(first) as client:
        run_id = await client.ask("a long story")
        await client.until("text_delta", run_id=run_id)
        first.terminate()
        await client.read_on()
        await first.ended()
        second = await start(database_url)
        await client.connect(second)
        assert client.text(run_id) == "It began and "
        assert client.end(run_id)["finish_reason"] == "interrupted"
        assert await second.history(client.session_id) == [("user", "a long story"), ("assistant", "It began and ")]
    await assert_nothing_in_progress(database_url, model, second)


async def test_a_long_reply_is_replayed_to_whoever_reads_it(
    database_url: str, model: Narrator, start: StartService
) -> None:
    service = await start(database_url)
    pieces = ["long " * 3_000 for _ in range(200)]  # 3 MB, far above what may wait for a reader
    model.tell("a novel", *map(Text, pieces))
    async with connected(service) as author:
        run_id = await author.ask("a novel")
        await author.leave()
        await eventually(lambda: model.is_quiet, 30)
        await author.connect(service)
        await author.until("assistant_end", run_id=run_id)
        assert author.text(run_id) == "".join(pieces)
        author.end(run_id)
    await assert_nothing_in_progress(database_url, model, service)
