"""One process performs a session's run; one that slept through its lease cannot write to it any more."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database
from tests.acceptance.client import Client, connected
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.fakes.script import Endless, Hang, Text, Wait
from tests.waiting import eventually

SESSIONS = 6


class Pair:
    """Two services on one database; the first one is going to sleep."""

    def __init__(self, sleeper: Service, heir: Service, url: str) -> None:
        self.sleeper = sleeper
        self.heir = heir
        self.url = url

    async def asleep(self, clients: list[Client], runs: list[str]) -> None:
        """Freeze the owner of the runs until the other service has closed them."""
        await self.sleeper.freeze()
        for client, run_id in zip(clients, runs, strict=True):
            await client.until("assistant_end", run_id=run_id)
            assert client.end(run_id)["finish_reason"] == "interrupted"

    async def stored(self, clients: list[Client]) -> list[Any]:
        """Everything of the clients' sessions."""
        ids = [client.session_id for client in clients]
        async with database(self.url) as connection:
            return [
                await connection.fetch(f"SELECT * FROM {table} WHERE session_id = ANY ($1::uuid[]) ORDER BY {key}", ids)
                for table, key in (("events", "session_id, seq"), ("messages", "id"), ("runs", "id"), ("journals", "1"))
            ]


@pytest.fixture
async def pair(database_url: str, start: StartService) -> Pair:
    sleeper, heir = [await start(database_url, TIMEOUTS__LEASE=1, LIMITS__POOL_SIZE=10) for _ in range(2)]
    return Pair(sleeper, heir, database_url)


@asynccontextmanager
async def watched_from_both(pair: Pair) -> AsyncGenerator[tuple[list[Client], list[Client]], None]:
    """Clients of some sessions at the one that will sleep, and of the same sessions at the other."""
    async with contextlib.AsyncExitStack() as stack:
        near = [await stack.enter_async_context(connected(pair.sleeper)) for _ in range(SESSIONS)]
        far = [await stack.enter_async_context(connected(pair.heir, client.session_id)) for client in near]
        yield near, far


async def test_a_sleeper_that_awakes_in_mid_sentence_writes_nothing_and_serves_on(
    pair: Pair, database_url: str, model: Narrator
) -> None:
    chance = random.Random(6)
    for number in range(SESSIONS):
        model.tell(f"story {number}", *at_pace(story(chance, 20), 0.01), Endless(" and then", 0.02))
    async with watched_from_both(pair) as (near, far):
        runs = [await client.ask(f"story {number}") for number, client in enumerate(near)]
        for client, run_id in zip(far, runs, strict=True):
            await client.until("text_delta", run_id=run_id, count=1 + chance.randrange(10))
        await pair.asleep(far, runs)
        before = await pair.stored(far)

        pair.sleeper.thaw()
        # It wakes up with the model's words in its hands, and lets go of the model when it may not write them.
        await eventually(lambda: model.is_quiet, 20)
        assert all(request.ended_by == "client" for request in model.requests)
        assert await pair.stored(far) == before

        for client, run_id in zip(near, runs, strict=True):
            await client.until("assistant_end", run_id=run_id)
        assert [client.frames for client in near] == [client.frames for client in far]

        for service in (pair.sleeper, pair.heir):
            async with connected(service) as client:
                await client.ask("and elsewhere?")
                await client.until("post_response_complete")
        for number, client in enumerate((near if number % 2 else far)[number] for number in range(SESSIONS)):
            run_id = await client.ask(f"go on with {number}")
            await client.until("post_response_complete", run_id=run_id)
            assert client.end(run_id)["finish_reason"] == "stop"
        async with database(database_url) as connection:
            for client in (*near, *far):
                await assert_seen_is_stored(connection, client)
    await assert_nothing_in_progress(database_url, model, pair.sleeper, pair.heir)


async def test_a_sleeper_with_a_silent_model_lets_go_of_it_and_of_the_session(
    pair: Pair, database_url: str, model: Narrator
) -> None:
    model.tell("a pause", Text("Well "), Hang())
    model.tell("a ramble", Endless("on and ", 0.02))
    async with watched_from_both(pair) as (near, far):
        runs = [await client.ask("a pause") for client in near]
        for client, run_id in zip(far, runs, strict=True):
            await client.until("text_delta", run_id=run_id)
        await pair.asleep(far, runs)
        # The session has a new run before the sleeper awakes: that one, not the old one, is what a client can stop.
        ramble = await far[0].ask("a ramble")
        await far[0].until("text_delta", run_id=ramble)

        pair.sleeper.thaw()
        for request in model.asked("a pause"):
            assert await request.closed
            assert request.ended_by == "client"
        await near[0].until("text_delta", run_id=ramble)
        await near[0].interrupt()
        await near[0].until("assistant_end", run_id=ramble, within=10)
        assert near[0].end(ramble)["finish_reason"] == "interrupted"
        await eventually(lambda: model.is_quiet, 20)
    await assert_nothing_in_progress(database_url, model, pair.sleeper, pair.heir)


async def test_a_sleeper_in_mid_transaction_does_not_keep_the_session_locked(
    pair: Pair, database_url: str, model: Narrator
) -> None:
    gate = asyncio.Event()
    model.tell("first", Text("one"), Wait(gate))
    async with connected(pair.sleeper) as near, connected(pair.heir, near.session_id) as far:
        first = await near.ask("first")
        await near.ask("second", when_busy="queue")
        await far.until("text_delta", run_id=first)
        async with database(database_url) as other, other.transaction():
            await other.fetch("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", near.session_id)
            gate.set()
            await eventually(lambda: somebody_waits(other))
            await pair.sleeper.freeze()
        # Its statement has been carried out, but nobody is there to commit it.
        end = await far.until("assistant_end", within=20)
        assert end["run_id"] == first
        await far.until("post_response_complete", "assistant_end", within=20)
        pair.sleeper.thaw()
        await near.until("assistant_end", count=2)
        assert near.frames[: far.position] == far.frames[: near.position]
    await assert_nothing_in_progress(database_url, model, pair.sleeper, pair.heir)


async def somebody_waits(connection: asyncpg.Connection) -> bool:
    """Whether another connection to this database waits for a lock."""
    return await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
