"""Whatever a tool server does, a reply that uses it comes to its end, and nobody else's is held up."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.acceptance.aftermath import assert_nothing_in_progress, figures
from tests.acceptance.client import Client, Event, connected
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Endless, Script, Text, call
from tests.fakes.server import Exchange, Recorded
from tests.integration.mcp.conftest import HOSTILE, inhabitants
from tests.waiting import eventually

GENEROUS = 1.5
"""Seconds between two words of somebody else's reply, on a machine that is busy anyhow."""

DEEDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("echo", {"a": 1}, "completed", '{"a": 1}'),
    ("nonsense", {}, "failed", "not in its own protocol"),
    ("big", {"bytes": 20_000_000}, "failed", "larger than 4 MiB"),
    ("crumbs", {}, "failed", "too many parts"),
    ("garbage", {}, "completed", "tidy again"),
    ("flood", {}, "completed", "done"),
    ("shout", {}, "completed", "hoarse"),
    ("sleep", {}, "failed", "did not answer within 3 seconds"),
    ("die", {}, "failed", "ended during the call"),
    ("freeze", {}, "failed", "did not answer within 3 seconds"),
]


class Patient(Narrator):
    """Takes note of whatever a tool answers, and concludes."""

    async def answer(self, request: web.Request, exchange_for: Callable[[Recorded], Exchange]) -> web.StreamResponse:
        newest = json.loads(await request.text())["messages"][-1]
        if newest["role"] == "tool":
            self._told[newest["content"]] = Script((Text("I see."),))
        return await super().answer(request, exchange_for)


@pytest.fixture
async def model() -> AsyncGenerator[Patient, None]:
    async with Patient() as narrator:
        yield narrator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the tool servers work."""
    (tmp_path / "tools").mkdir()
    return tmp_path / "tools"


async def started(start: StartService, database_url: str, home: Path) -> Service:
    """A service with a server of every kind of badness, and a good one."""

    def fake(*manners: str) -> dict[str, Any]:
        words = ["-S", "-E", str(HOSTILE), *manners]
        return {"command": sys.executable, "args": words, "cwd": str(home), "mode": "legacy", "timeout": 3}

    servers = {
        "hostile": fake(),
        "absent": {"command": "no-such-program"},
        "stillborn": fake("stillborn"),
        "lying": fake("lying"),
        "good": fake(),
    }
    file = home / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    return await start(database_url, MCP_CONFIG=file, TIMEOUTS__TOOL_WAIT=30, LIMITS__TOOLS_PER_RUN=100)


async def test_every_bad_deed_costs_its_own_call_and_nobody_elses_time(
    database_url: str, model: Patient, start: StartService, home: Path
) -> None:
    service = await started(start, database_url, home)
    model.tell("talk on", Endless("word ", 0.02))
    async with connected(service) as client, connected(service) as other:
        await use(client, model, "good", "echo", {}, "completed", "{}")
        beside = await other.ask("talk on")
        gaps = asyncio.create_task(words_of(other, beside))
        for tool, arguments, status, words in DEEDS:
            await use(client, model, "hostile", tool, arguments, status, words)
            await use(client, model, "good", "echo", {}, "completed", "{}")
        await eventually(lambda: works_again(client, model), 20)
        await other.interrupt(beside)
        seconds = await gaps
    sys.stdout.write(figures("between two words beside bad tool servers", seconds))
    assert max(seconds) < GENEROUS
    health = (await service.request("GET", "/api/health"))["parts"]
    states = {part["name"]: part["status"] for part in health if part["name"].startswith("tools/")}
    assert (states["tools/good"], states["tools/absent"], states["tools/stillborn"]) == ("ok", "failing", "failing")
    await assert_nothing_in_progress(database_url, model, service)
    service.terminate()
    await service.ended()
    assert not inhabitants(home)


async def works_again(client: Client, model: Patient) -> bool:
    """Whether the hostile server has had its rest."""
    return (await used(client, model, "hostile", "echo", {"b": 2}))["status"] == "completed"


async def use(
    client: Client, model: Patient, server: str, tool: str, arguments: dict[str, Any], status: str, words: str
) -> None:
    """Have the model call a tool, which ends as expected."""
    done = await used(client, model, server, tool, arguments)
    assert done["status"] == status, done
    assert words in done["result"], done


async def used(client: Client, model: Patient, server: str, tool: str, arguments: dict[str, Any]) -> Event:
    """How a call of a tool ended, in a reply that ended in good order."""
    question = f"do {tool} of {server} with {arguments}"
    model.tell(question, call(0, f"{server}__{tool}", arguments, id=tool))
    run_id = await client.ask(question)
    await client.until("assistant_end", run_id=run_id)
    events = client.of_run(run_id)
    assert client.end(run_id)["finish_reason"] == "stop", events
    assert client.text(run_id) == "I see."
    assert not [event for event in events if event["type"] == "error"]
    (done,) = (event for event in events if event["type"] == "tool_done")
    return done


async def words_of(client: Client, run_id: str) -> list[float]:
    """Seconds between the words of a reply, until its end."""
    gaps: list[float] = []
    before = time.monotonic()
    while (event := await client.next())["type"] != "assistant_end":
        if event["type"] == "text_delta":
            gaps.append(time.monotonic() - before)
            before = time.monotonic()
    assert event["run_id"] == run_id
    return gaps


async def test_a_service_that_is_killed_takes_its_tool_servers_with_it(
    database_url: str, model: Patient, start: StartService, home: Path
) -> None:
    service = await started(start, database_url, home)
    async with connected(service) as client:
        await use(client, model, "good", "echo", {}, "completed", "{}")
        model.tell("wait", call(0, "hostile__sleep", {}, id="s"))
        await client.ask("wait")
        await eventually((home / "begun").exists, 20)
        assert inhabitants(home)

        service.kill()

        await eventually(lambda: not inhabitants(home))
