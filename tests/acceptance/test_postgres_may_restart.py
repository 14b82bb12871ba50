"""A reply outlives a restart of PostgreSQL, or ends with an error that says that asking again may help."""

import asyncio
import random

import pytest

from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database
from tests.acceptance.client import Client, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.postgres import DurablePostgres
from tests.waiting import eventually

REPLIES = 12
PIECES = 60


@pytest.mark.parametrize("way", ["restart", "kill"])
async def test_replies_go_on_over_a_restart_and_the_next_message_works(
    way: str, durable_postgres: DurablePostgres, model: Narrator, start: StartService
) -> None:
    chance = random.Random(way)
    stories = [story(chance, PIECES) for _ in range(REPLIES)]
    service = await start(durable_postgres.url, TIMEOUTS__LEASE=2)
    for number, pieces in enumerate(stories):
        model.tell(f"story {number}", *at_pace(pieces, 0.02))
    async with crowd(service, REPLIES) as clients:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(client.insist(service, f"story {number}", f"story {number}"))
                for number, client in enumerate(clients)
            ]
            moment = chance.randrange(20 * REPLIES, PIECES // 2 * REPLIES)
            await eventually(lambda: sum(client.position for client in clients) >= moment, 20)
            if way == "restart":
                await durable_postgres.restart()
            else:
                await durable_postgres.kill()
                await durable_postgres.start()
        whole = 0
        for client, run, pieces in zip(clients, asked, stories, strict=True):
            whole += was_whole(client, run.result(), "".join(pieces))
        assert whole, "not one reply was whole"
        for number, client in enumerate(clients):
            run_id = await client.insist(service, f"and then, {number}?", f"and then, {number}?")
            assert client.end(run_id)["finish_reason"] == "stop"
        async with database(durable_postgres.url) as connection:
            for client in clients:
                await assert_seen_is_stored(connection, client)
    await assert_nothing_in_progress(durable_postgres.url, model, service)


def was_whole(client: Client, run_id: str, text: str) -> bool:
    match client.end(run_id)["finish_reason"]:
        case "stop":
            assert client.text(run_id) == text
            return True
        case reason:
            (error,) = (event for event in client.of_run(run_id) if event["type"] == "error")
            assert reason == "error"
            assert error["retryable"], error
            assert text.startswith(client.text(run_id))
            return False
