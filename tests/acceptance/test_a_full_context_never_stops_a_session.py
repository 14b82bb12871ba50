"""A conversation longer than its model's window goes on, whoever dies while room is being made in it."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from services.context.summaries import TAG
from tests.acceptance.aftermath import database
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.acceptance.test_turns_cost_the_same_in_any_session import write_history
from tests.fakes.script import Hang, Text, Wait
from tests.fakes.strict import complaints_about
from tests.waiting import eventually

SETTINGS = {"TIMEOUTS__LEASE": 1, "CONTEXT__DEFAULT_WINDOW": 3000, "CONTEXT__REPLY_TOKENS": 512}


@pytest.fixture(autouse=True)
def small(model: Narrator) -> None:
    model.models[0]["context_length"] = 3000


def client_of(service: Service) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=service.address, timeout=60)


async def new_session(service: Service, url: str, messages: int) -> str:
    async with client_of(service) as http:
        session = (await http.post("/api/sessions", json={})).json()["id"]
    async with database(url) as connection:
        await write_history(connection, session, messages)
    return session


async def say(service: Service, session: str, content: str) -> dict[str, Any]:
    async with client_of(service) as http:
        return (await http.post(f"/api/sessions/{session}/messages", json={"content": content})).json()


async def summaries(connection: "asyncpg.Connection[asyncpg.Record]", session: str) -> list[str]:
    rows = await connection.fetch("SELECT kind FROM context_summaries WHERE session_id = $1", UUID(session))
    return [row["kind"] for row in rows]


def is_summarizing(request: Any) -> bool:
    return f"<{TAG}>" in request.body["messages"][-1]["content"]


async def test_kill_while_it_is_summarized_costs_that_reply_and_nothing_else(
    database_url: str, start: StartService, model: Narrator
):
    first = await start(database_url, **SETTINGS)
    session = await new_session(first, database_url, 30)
    model.script(Text("They "), Hang())
    lost = asyncio.create_task(say(first, session, "And now?"))
    request = await model.request()
    assert is_summarizing(request)
    first.kill()
    with pytest.raises(httpx2.HTTPError):
        await lost

    second = await start(database_url, **SETTINGS)
    reply = await say(second, session, "Again?")

    assert reply["finish_reason"] == "stop"
    assert [is_summarizing(asked) for asked in model.requests] == [True, True, False]
    assert complaints_about(model.requests[-1].body["messages"]) == []
    async with database(database_url) as connection:
        assert await summaries(connection, session) == ["summary"]
        closed = await connection.fetch("SELECT finish_reason FROM runs ORDER BY first_seq")
        assert [row["finish_reason"] for row in closed] == ["interrupted", "stop"]


async def test_two_services_that_summarize_at_once_store_one_summary(
    database_url: str, start: StartService, model: Narrator
):
    services = [await start(database_url, **SETTINGS) for _ in range(2)]
    session = await new_session(services[0], database_url, 8)
    gate = asyncio.Event()
    for _ in services:
        model.script(Text("They "), Wait(gate), Text("talked."))

    async def summarize(service: Service) -> int:
        async with client_of(service) as http:
            return (await http.post(f"/api/sessions/{session}/summarize")).status_code

    asked = [asyncio.create_task(summarize(service)) for service in services]
    await eventually(lambda: len(model.requests) == 2, 20)
    gate.set()
    assert sorted(await asyncio.gather(*asked)) == [200, 409]
    async with database(database_url) as connection:
        assert await summaries(connection, session) == ["summary"]
    for service in services:
        assert (await say(service, session, "Go on."))["finish_reason"] == "stop"
