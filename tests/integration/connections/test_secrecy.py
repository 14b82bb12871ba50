"""A key goes to its own server, and nowhere else: it is looked for wherever anything is written, told or kept."""

import logging
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Fault, Status, Text

CANARY = "Zq81xWv0LpT4-canary-of-tests"
TAIL = CANARY[8:]
"""What is looked for: also parts of it that somebody has cut off."""

SCRIPT = """
told = ""
for ask in ("mine", "openai"):
    try:
        told = told + str(ctx.generate("say hello", provider=ask))
    except Exception as error:
        told = told + str(error)
ctx.set_output("told", told)
ctx.set_variable("told", told)
ctx.log(told)
print(told)
"""


@pytest.fixture
async def told(http: httpx2.AsyncClient, database: asyncpg.Connection) -> AsyncGenerator[list[str], None]:
    """Every body that the service answers with."""
    bodies: list[str] = []

    async def keep(response: httpx2.Response) -> None:
        bodies.append(f"{response.headers}{(await response.aread()).decode()}")

    http.event_hooks["response"].append(keep)
    yield bodies
    await database.execute("delete from provider_connections")


async def test_a_key_is_nowhere_but_in_what_its_server_was_sent(
    http: httpx2.AsyncClient,
    model: OpenAIFake,
    database: asyncpg.Connection,
    told: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = f"Incorrect API key provided: {CANARY}. You sent Authorization: Bearer {CANARY}"
    settings: dict[str, Any] = {"base_url": model.url, "api_key": CANARY}

    # Saved, looked at, changed, and refused with mistakes beside it.
    saved = (await http.post("/api/connections", json={"name": "mine", "kind": "openai"} | settings)).json()
    await http.post("/api/connections", json={"name": "mine", "kind": "openai"} | settings)
    await http.post("/api/connections", json={"name": "openai", "kind": "nonsense", "num_ctx": "x"} | settings)
    await http.post("/api/connections", json=settings | {"api_key": f"{CANARY} "})
    await http.post("/api/connections", json=settings | {"api_key": [CANARY], CANARY[:3]: 1})
    await http.post("/api/connections", content=f'{{"api_key": "{CANARY}"'.encode())
    await http.patch(f"/api/connections/{saved['id']}", json={"api_key": CANARY, "default_model": "fake-small"})
    await http.get("/api/connections/mine")
    await http.get("/api/connections")
    await http.get("/api/config")

    # Tried, with a server that quotes it.
    await http.post("/api/connections/mine/test")
    await http.post("/api/connections/openai/test", json=settings)
    for step in (Status(401, quoting), Status(400, quoting), Fault(quoting)):
        model.script(step)
        await http.post("/api/connections/mine/test", json={"model": "fake-small"})

    # Used, well and badly, also by a script.
    module = f"teller_{saved['id'].replace('-', '')[:12]}"
    await http.post("/api/modules", json={"name": module, "type": "advanced", "content": "${told}", "script": SCRIPT})
    persona = {"name": f"Teller {saved['id']}", "template": f"@{module}", "connection": "mine"}
    persona_id = (await http.post("/api/personas", json=persona)).json()["id"]
    session = (await http.post("/api/sessions", json={"persona_id": persona_id})).json()["id"]
    path = f"/api/sessions/{session}"
    model.script(Status(401, quoting))
    for step in (Status(401, quoting), Text("A reply."), Status(400, quoting), Fault(quoting)):
        await http.post(f"{path}/messages", json={"content": "hi", "connection_id": saved["id"]})
        model.script(step)
    await http.post("/api/modules/test-script", json={"script": SCRIPT, "content": "${told}", "session_id": session})

    # Read again, exported, and gone.
    runs = (await http.get(f"{path}/runs")).json()["items"]
    for end in ("", "/messages", "/context", "/export", "/events?after=0", *(f"/runs/{run['id']}" for run in runs)):
        if end.startswith("/events"):
            continue  # a stream: its rows are looked at below
        await http.get(f"{path}{end}")
    await http.get("/api/personas/export")
    await http.get("/api/library/export")
    await http.get("/api/audit")
    await http.get("/metrics")
    await http.get("/openapi.json")
    rows = await _everything(database)
    await http.delete("/api/connections/mine")

    sent = [request.headers["authorization"] for request in (*model.requests, *model.lookups)]
    assert f"Bearer {CANARY}" in sent
    assert len(runs) >= 4
    assert not [body for body in told if TAIL in body]
    assert not [record.getMessage() for record in caplog.records if TAIL in f"{record.getMessage()}{record.__dict__}"]
    assert not [table for table, text in rows.items() if TAIL in text]
    assert "provider_connections" in rows


async def _everything(database: asyncpg.Connection) -> dict[str, str]:
    """All rows of all tables, as text."""
    tables = await database.fetch("select tablename from pg_tables where schemaname = 'public'")
    found: dict[str, str] = {}
    for (table,) in tables:
        rows = await database.fetch(f'select t::text from "{table}" t')
        found[table] = "\n".join(row[0] for row in rows)
        # Bytes are shown in hexadecimal digits.
        assert CANARY.encode().hex() not in found[table]
    return found
