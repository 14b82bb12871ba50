"""What the service says about itself."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from api.asyncapi import asyncapi_document
from api.main import create_app
from api.settings import Settings
from db.ids import LOCAL_OWNER, SessionId, new_id
from services.hardening import Hardening
from services.mcp.pool import McpPool
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.rest.reading import problem
from tests.postgres import DurablePostgres
from tests.service import local_settings, running_service
from tests.waiting import eventually


async def test_a_healthy_service_says_so(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/livez")).json() == {"status": "alive"}
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    health = (await http.get("/api/health")).json()
    assert health["status"] == "ok"
    assert [part["name"] for part in health["parts"]] == [
        "database",
        "migrations",
        "runs",
        "providers",
        "scripts",
        "tools/time",
    ]
    assert all(part["ms"] >= 0 for part in health["parts"])


async def test_health_tells_how_far_scripts_are_shut_in(http: httpx2.AsyncClient) -> None:
    parts = (await http.get("/api/health")).json()["parts"]
    scripts = next(part for part in parts if part["name"] == "scripts")
    assert scripts["status"] == "ok"
    assert scripts["detail"] in {level.meaning for level in Hardening}


async def test_without_its_database_the_service_lives_but_is_not_ready(durable_postgres: DurablePostgres) -> None:
    async with (
        running_service(local_settings(), durable_postgres.url) as base_url,
        httpx2.AsyncClient(base_url=base_url, timeout=20) as http,
    ):
        await durable_postgres.stop()

        assert (await http.get("/livez")).status_code == 200
        unready = await http.get("/readyz")
        problem(unready, 503, "unavailable")
        assert unready.headers["retry-after"]
        assert (await http.get("/api/health")).json()["status"] == "failing"
        problem(await http.get("/api/sessions"), 503, "unavailable")

        await durable_postgres.start()
        assert (await http.get("/readyz")).status_code == 200


async def test_a_database_of_another_version_is_not_ready(database_url: str) -> None:
    async with (
        running_service(local_settings(), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        await _forget_migrations(database_url)

        assert "migrations" in problem(await http.get("/readyz"), 503, "unavailable")["detail"]


async def test_going_down_lets_the_reply_end_and_takes_nothing_new(database_url: str, model: OpenAIFake) -> None:
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two."))
    settings = local_settings(default_provider="openai", openai_base_url=model.url, openai_default_model="fake-small")
    service = running_service(settings, database_url)
    async with httpx2.AsyncClient(base_url=await service.__aenter__(), timeout=20) as http:
        session = (await http.post("/api/sessions")).json()["id"]
        path = f"/api/sessions/{session}/messages"
        reply = asyncio.create_task(http.post(path, json={"content": "Count"}))
        await model.request()
        going_down = asyncio.create_task(service.__aexit__(None, None, None))
        await eventually(lambda: _status_is(http, "/readyz", 503))

        problem(await http.get("/readyz"), 503, "shutting_down")
        refused = problem(await http.post(path, json={"content": "More"}), 503, "shutting_down")
        gate.set()
        await going_down

    assert refused["resend_safe"]
    assert reply.result().json()["message"]["content"] == "One two."


async def _status_is(http: httpx2.AsyncClient, path: str, status: int) -> bool:
    return (await http.get(path)).status_code == status


async def test_the_configuration_tells_what_can_be_used_and_no_secret(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/config")

    config = answer.json()
    assert config["auth_mode"] == "local"
    assert config["default_provider"] == "openai"
    assert config["default_model"] == "fake-small"
    # Behind them may be what other tests have saved.
    assert [server["name"] for server in config["providers"]][:2] == ["openai", "demo"]
    assert config["limits"]["body_bytes"] == 1_048_576
    assert config["version"]
    assert "sk-test" not in answer.text
    assert "127.0.0.1" not in answer.text


@asynccontextmanager
async def inside(settings: Settings, database_url: str) -> AsyncGenerator[tuple[httpx2.AsyncClient, McpPool], None]:
    """A client of a service in this process, and its tool servers."""
    app = create_app(settings, database_url)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8000") as http,
    ):
        yield http, app.state.services.tool_servers


async def test_the_configuration_tells_of_tool_servers_and_of_their_tools_once_they_are_known(
    database_url: str,
) -> None:
    async with inside(local_settings(), database_url) as (http, pool):
        (before,) = (await http.get("/api/config")).json()["tool_servers"]
        await pool.call(LOCAL_OWNER, SessionId(new_id()), "time", "get_current_time", {"timezone": "UTC"})
        (after,) = (await http.get("/api/config")).json()["tool_servers"]
        health = (await http.get("/api/health")).json()

    assert (before["name"], before["default"], before["isolation"]) == ("time", False, "shared")
    assert (before["state"], before["tools"]) == ("idle", None)
    assert after["state"] == "ready"
    assert [tool["qualified_name"] for tool in after["tools"]] == ["time__get_current_time", "time__convert_time"]
    assert [part["detail"] for part in health["parts"] if part["name"] == "tools/time"] == ["2 tools"]


async def test_a_tool_server_that_fails_is_told_of_but_is_not_the_services_failure(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{"mcpServers": {"absent": {"command": "no-such-program", "env": {"KEY": "canary"}}}}')
    async with inside(local_settings(mcp_config=file, timeouts={"tool_wait": 30}), database_url) as (http, pool):
        await pool.tools(LOCAL_OWNER, SessionId(new_id()), ["absent"])
        health = (await http.get("/api/health")).json()
        config = await http.get("/api/config")

    part = health["parts"][-1]
    assert health["status"] == "ok"
    assert (part["name"], part["status"]) == ("tools/absent", "failing")
    assert "no-such-program" in part["detail"]
    assert "canary" not in config.text + str(health)


def test_nothing_of_the_tool_protocol_is_loaded_with_the_service() -> None:
    program = "import sys, api.main; sys.exit(any(name.split('.')[0] in ('mcp', 'mcp_types') for name in sys.modules))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_every_operation_is_documented_with_its_problems(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()

    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", id) for id in ids), ids
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for operation in operations:
        assert set(operation["tags"]) <= tags
        assert operation["description"]
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
                assert len(response["content"]) == 1


async def test_all_references_in_the_documents_lead_somewhere(http: httpx2.AsyncClient) -> None:
    for path in ("/openapi.json", "/asyncapi.json"):
        document = (await http.get(path)).json()
        references = _references(document)
        assert references
        for reference in references:
            target: Any = document
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]


async def test_the_rest_document_knows_the_frames_of_sockets_and_no_foreign_errors(http: httpx2.AsyncClient) -> None:
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]

    assert {"Problem", "ClientFrame", "ServerFrame", "MessageFrame", "TextDeltaFrame"} <= set(schemas)
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


async def test_the_document_of_the_sockets_has_both_and_every_frame(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/asyncapi.json")).json()

    assert document["asyncapi"].startswith("3.")
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {"/ws/chat/{session_id}", "/ws/chat"}
    query = document["channels"]["session"]["bindings"]["ws"]["query"]["properties"]
    assert set(query) == {"after", "epoch"}
    described = set(document["components"]["messages"])
    assert {"MessageFrame", "InterruptFrame", "TextDeltaFrame", "AssistantEndFrame", "ChatFrame", "Chunk"} <= described
    assert {"AuthenticateFrame", "DialectAuthenticate"} <= described
    assert {operation["action"] for operation in document["operations"].values()} == {"send", "receive"}
    for channel in document["channels"].values():
        assert {"4400", "4401", "4403", "4404", "4408", "4413", "4429", "4508"} <= set(channel["x-close-codes"])
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_the_document_of_the_sockets_is_the_same_every_time() -> None:
    assert asyncapi_document("1", "localhost") == asyncapi_document("1", "localhost")


async def test_the_documentation_can_be_opened(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/docs")

    assert answer.status_code == 200
    assert '<script src="/docs/begin.js"></script>' in answer.text
    assert "/openapi.json" in (await http.get("/docs/begin.js")).text


def _references(value: Any) -> set[str]:
    match value:
        case dict():
            inner = set[str]().union(*map(_references, value.values()))
            return inner | ({value["$ref"]} if isinstance(value.get("$ref"), str) else set[str]())
        case list():
            return set[str]().union(*map(_references, value))
        case _:
            return set()


async def _forget_migrations(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("delete from schema_migrations")
    await connection.close()
