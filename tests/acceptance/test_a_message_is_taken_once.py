"""However often a message is sent, and whatever becomes of the database meanwhile, it is taken once."""

import asyncio
import random

from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database
from tests.acceptance.client import Client, connected
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.postgres import DurablePostgres
from tests.postgres_proxy import proxied
from tests.waiting import eventually

MESSAGES = 12


def told(model: Narrator, chance: random.Random) -> list[str]:
    questions = [f"question {number}" for number in range(MESSAGES)]
    for question in questions:
        model.tell(question, *at_pace(story(chance, 10), 0.005))
    return questions


async def assert_taken_once(url: str, model: Narrator, session_id: str, questions: list[str]) -> None:
    async with database(url) as connection:
        said = await connection.fetch(
            "SELECT role, content, run_id FROM messages WHERE session_id = $1 ORDER BY role = 'assistant', id",
            session_id,
        )
        ids = await connection.fetch("SELECT client_message_id FROM runs WHERE session_id = $1", session_id)
    assert sorted(row["client_message_id"] for row in ids) == sorted(questions)
    assert sorted(row["content"] for row in said if row["role"] == "user") == sorted(questions)
    answered = [row["run_id"] for row in said if row["role"] == "assistant"]
    assert len(set(answered)) == len(answered)
    for question in questions:
        assert len(model.asked(question)) <= 1, f"the model was asked twice for {question!r}"


async def test_retries_from_two_sockets_over_commits_without_an_answer_make_one_message(
    database_url: str, model: Narrator, start: StartService
) -> None:
    chance = random.Random(7)
    questions = told(model, chance)
    async with proxied(database_url) as (url, proxy):
        service = await start(url)
        async with connected(service) as one, connected(service, one.session_id) as two:
            for question in questions:
                swallowed = proxy.swallowed
                proxy.swallow_next_answer_to = chance.choice([b"message_accepted", b"text_delta", b"assistant_end"])
                runs = await asyncio.gather(*(client.insist(service, question, question) for client in (one, two)))
                assert runs[0] == runs[1]
                assert one.end(runs[0])["finish_reason"] == "stop"
                await eventually(lambda swallowed=swallowed: proxy.swallowed == swallowed + 1)
            retried = {
                (await service.request("POST", f"/api/sessions/{one.session_id}/messages", json=body))["run_id"]
                for body in [{"content": questions[0], "client_message_id": questions[0]}] * 2
            }
            assert retried == {one.accepted(questions[0])}
            assert len(await service.history(one.session_id)) == 2 * MESSAGES
            await assert_taken_once(database_url, model, one.session_id, questions)
            await assert_both_saw_what_is_stored(database_url, one, two)
    await assert_nothing_in_progress(database_url, model)


async def test_retries_at_two_replicas_while_the_database_goes_and_comes_make_one_message(
    durable_postgres: DurablePostgres, model: Narrator, start: StartService
) -> None:
    questions = told(model, random.Random(8))
    first, second = [await start(durable_postgres.url) for _ in range(2)]

    async def kill_and_start() -> None:
        await durable_postgres.kill()
        await durable_postgres.start()

    faults = {1: durable_postgres.end_connections, 4: durable_postgres.restart, 7: kill_and_start}

    async with connected(first) as one, connected(second, one.session_id) as two:
        for number, question in enumerate(questions):
            breaks = [faults[number]()] if number in faults else []
            one_run, two_run, *_ = await asyncio.gather(
                one.insist(first, question, question), two.insist(second, question, question), *breaks
            )
            assert one_run == two_run
            await assert_ended_well(one, str(one_run))
        await assert_taken_once(durable_postgres.url, model, one.session_id, questions)
        await assert_both_saw_what_is_stored(durable_postgres.url, one, two)
    await assert_nothing_in_progress(durable_postgres.url, model, first, second)


async def assert_ended_well(client: Client, run_id: str) -> None:
    """The reply is whole, or there is an error that says that asking again may help."""
    end = client.end(run_id)
    if end["finish_reason"] != "stop":
        (error,) = (event for event in client.of_run(run_id) if event["type"] == "error")
        assert error["retryable"], error


async def assert_both_saw_what_is_stored(url: str, *clients: Client) -> None:
    async with database(url) as connection:
        for client in clients:
            await assert_seen_is_stored(connection, client)
