"""A reply outlives a restart of PostgreSQL, or ends with an error that says that asking again may help."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from services.context.summaries import TAG
from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.acceptance.test_turns_cost_the_same_in_any_session import write_history
from tests.fakes.script import Endless, Text, Wait
from tests.postgres import DurablePostgres
from tests.waiting import eventually

REPLIES = 12
PIECES = 60
OUTAGE = float(os.environ.get("OUTAGE_SECONDS", "7"))
"""Several times as long as a lease."""


async def break_it(postgres: DurablePostgres, way: str) -> None:
    match way:
        case "restart":
            await postgres.restart()
        case "fall":
            await postgres.fall()
            await postgres.start()
        case "kill a backend":
            await postgres.kill_backend()
        case _:
            await postgres.kill()
            await postgres.start()


@pytest.mark.parametrize("way", ["restart", "fall", "kill a backend", "kill"])
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
            await break_it(durable_postgres, way)
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


async def test_a_long_outage_stops_nothing_for_good_and_stores_nothing_wrong(
    durable_postgres: DurablePostgres, model: Narrator, start: StartService, tmp_path: Path
) -> None:
    chance = random.Random(11)
    back = asyncio.Event()
    pieces = story(chance, PIECES)
    model.models[0]["context_length"] = 3000
    model.tell("story", *at_pace(pieces, 0.02))
    model.tell("endless", Endless("and ", 0.02))
    model.tell("reflecting", Text("Well."))
    model.tell("Ponder.", Wait(back), Text("Hm."))
    service = await start(durable_postgres.url, TIMEOUTS__LEASE=2, CONTEXT__DEFAULT_WINDOW=3000)
    async with (
        crowd(service, 3) as clients,
        connected(service, await pondering(service)) as reflecting,
        httpx2.AsyncClient(base_url=service.address, timeout=120) as http,
    ):
        telling, stopped, full = clients
        async with database(durable_postgres.url) as connection:
            await write_history(connection, full.session_id, 30)
        model.script(Text("They spoke "), Wait(back), Text("of much."))
        summarizing = asyncio.create_task(http.post(f"/api/sessions/{full.session_id}/summarize"))
        await eventually(lambda: any(f"<{TAG}>" in str(asked.body["messages"][-1]) for asked in model.requests), 20)
        told = await telling.ask("story")
        endless = await stopped.ask("endless")
        await reflecting.ask("reflecting")
        await eventually(lambda: model.asked("Ponder."), 20)
        for client in (telling, stopped):
            await client.until("text_delta")

        await durable_postgres.stop()
        await stopped.interrupt(endless)
        await asyncio.wait_for(model.asked("endless")[0].closed, 10)
        await is_refused_without_a_database(service, http, telling.session_id)
        await asyncio.sleep(OUTAGE)
        assert service.process.poll() is None
        await durable_postgres.start()
        back.set()

        await eventually(lambda: answers(http, "/readyz", 200), 20)
        run_id = await telling.insist(service, "story", "again")
        assert telling.text(run_id) == "".join(pieces)
        if not telling.has_end(told):
            await telling.until("assistant_end", run_id=told)
        was_whole_or_stopped(telling, told, "".join(pieces))
        if not stopped.has_end(endless):
            await stopped.leave()
            await stopped.come_back(service)
            await stopped.until("assistant_end", run_id=endless)
        assert stopped.end(endless)["finish_reason"] in ("interrupted", "error")
        assert (await summarizing).status_code in (200, 503)
        await reflecting.leave()
        await reflecting.come_back(service)
        if reflecting.events[-1]["type"] != "post_response_complete":
            await reflecting.until("post_response_complete")
        async with database(durable_postgres.url) as connection:
            for client in clients:
                await assert_seen_is_stored(connection, client)
            ids = {str(row["id"]) for row in await connection.fetch("SELECT id FROM files")}
            assert await connection.fetchval("SELECT count(*) FROM messages WHERE content = 'while it is away'") == 0
    kept = {path.name for path in (tmp_path / "data" / "files").glob("*/[0-9a-f][0-9a-f]/*")}
    assert kept == ids
    await assert_nothing_in_progress(durable_postgres.url, model, service)


async def pondering(service: Service) -> str:
    """A session whose persona asks the model something after each reply."""
    module = {"name": "ponder", "type": "advanced", "script": 'ctx.generate("Ponder.")'}
    await service.request("POST", "/api/modules", json=module | {"execution_context": "POST_RESPONSE"})
    persona = await service.request("POST", "/api/personas", json={"name": "Thinker", "template": "@ponder"})
    return (await service.request("POST", "/api/sessions", json={"persona_id": persona["id"]}))["id"]


async def answers(http: httpx2.AsyncClient, path: str, status: int) -> bool:
    return (await http.get(path)).status_code == status


async def is_refused_without_a_database(service: Service, http: httpx2.AsyncClient, session_id: str) -> None:
    """Each door says that it is the database, that trying again is right, and when."""
    assert (await http.get("/livez")).status_code == 200
    path = f"/api/sessions/{session_id}"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/readyz", {}),
        ("GET", path, {}),
        ("POST", f"{path}/messages", {"json": {"content": "while it is away"}}),
        ("POST", f"{path}/files", {"files": {"file": ("a.txt", b"lost", "text/plain")}}),
        ("PATCH", path, {"json": {"title": "lost"}}),
    ]
    for method, address, body in asked:
        refused = await http.request(method, address, **body)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), f"{method} {address}"
        assert int(refused.headers["retry-after"]) > 0
    assert (await http.get("/api/health")).json()["status"] != "ok"
    with pytest.raises(ConnectionClosed) as closed:
        async with connect(f"{service.address.replace('http', 'ws', 1)}/ws/chat/{session_id}") as socket:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


def was_whole_or_stopped(client: Client, run_id: str, text: str) -> None:
    """The message that came after it may have interrupted it."""
    if client.end(run_id)["finish_reason"] == "interrupted":
        assert text.startswith(client.text(run_id))
    else:
        was_whole(client, run_id, text)


async def test_a_service_waits_for_a_database_that_is_starting_too(
    durable_postgres: DurablePostgres, start: StartService, tmp_path: Path
) -> None:
    await durable_postgres.stop()
    starting = asyncio.create_task(start(durable_postgres.url))
    log = tmp_path / "service-1.log"
    await eventually(lambda: log.exists() and "does not answer yet" in log.read_text(), 30)
    await durable_postgres.start()
    service = await starting
    assert (await service.request("GET", "/readyz"))["status"] == "ready"


async def test_nobody_is_signed_out_by_an_outage(durable_postgres: DurablePostgres, start: StartService) -> None:
    service = await start(durable_postgres.url, AUTH_MODE="accounts", PASSWORDS__MEMORY_KIB=64)
    account = {"email": "ada@example.org", "password": "correct horse battery staple"}
    async with httpx2.AsyncClient(base_url=service.address, timeout=60) as http:
        signed_in = (await http.post("/api/auth/register", json=account)).raise_for_status().json()
        http.cookies.clear()
        token, refresh = signed_in["access_token"], {"refresh_token": signed_in["refresh_token"]}
        bearer = {"authorization": f"Bearer {token}"}
        session = (await http.post("/api/sessions", json={}, headers=bearer)).raise_for_status().json()["id"]
        socket_address = f"{service.address.replace('http', 'ws', 1)}/ws/chat/{session}"

        await durable_postgres.stop()
        for method, path, body, headers in (
            ("GET", "/api/auth/me", None, bearer),
            ("POST", "/api/auth/login", account, {}),
            ("POST", "/api/auth/refresh", refresh, {}),
            ("POST", "/api/auth/ws-ticket", {"session_id": session}, bearer),
        ):
            refused = await http.request(method, path, json=body, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), f"{method} {path}"
        with pytest.raises(ConnectionClosed) as closed:
            async with connect(socket_address, additional_headers=bearer) as socket:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        await durable_postgres.start()

        await eventually(lambda: answers(http, "/readyz", 200), 20)
        assert (await http.get("/api/auth/me", headers=bearer)).status_code == 200
        async with connect(socket_address, additional_headers=bearer) as socket:
            assert '"session_start"' in str(await socket.recv())
        assert (await http.post("/api/auth/refresh", json=refresh)).status_code == 200
        assert (await http.post("/api/auth/login", json=account)).status_code == 200
