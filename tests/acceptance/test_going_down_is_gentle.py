"""Who is asked to stop takes nothing new, lets what runs come to its end, and leaves the rest to others."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from tests.acceptance.aftermath import assert_nothing_in_progress, database
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Endless, Text, Wait, call
from tests.ledger import Ledger
from tests.waiting import eventually

DRAIN = 6.0
"""Seconds; seven tenths of it are for replies."""
LONG_DRAIN = 25.0
SEEN_QUICKLY = 5.0
"""Far less than LONG_DRAIN, far more than what an end takes in good order on a busy machine."""
LONG_LEASE = 60.0
"""Whoever goes on with something before that was told of it."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


class Gate:
    """What the model, a tool and an upload wait for."""

    def __init__(self, ledger: Ledger) -> None:
        self.event = asyncio.Event()
        self.later = asyncio.Event()
        """What is asked after a reply waits for this one."""
        self._ledger = ledger

    def open(self) -> None:
        self.event.set()
        self._ledger.allow("calling")


@pytest.fixture
def gate(ledger: Ledger, model: Narrator) -> Gate:
    gate = Gate(ledger)
    for question in ("finishing", "awaited", "first"):
        model.tell(question, Text("So far "), Wait(gate.event), Text("so good."))
    model.tell("endless", Endless("and ", 0.02))
    model.tell("second", Text("After it."))
    model.tell("do calling", call(0, "ledger__wait", {"text": "calling"}, id="w"))
    model.tell("calling is there", Text("Called."))
    model.tell("do asking", call(0, "ledger__remove", {"text": "asking"}, id="r"))
    model.tell("remove done: asking", Text("Removed."))
    model.tell("reflecting", Text("Well."))
    model.tell("Ponder.", Wait(gate.later), Text("Hm."))
    return gate


async def pondering(service: Service) -> str:
    """A session whose persona asks the model something after each reply."""
    module = {"name": "ponder", "type": "advanced", "script": 'ctx.generate("Ponder.")'}
    await service.request("POST", "/api/modules", json=module | {"execution_context": "POST_RESPONSE"})
    persona = await service.request("POST", "/api/personas", json={"name": "Thinker", "template": "@ponder"})
    return (await service.request("POST", "/api/sessions", json={"persona_id": persona["id"]}))["id"]


@contextlib.asynccontextmanager
async def browser(service: Service) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with httpx2.AsyncClient(base_url=service.address, timeout=40) as http:
        yield http


async def slowly(gate: Gate, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """The body of an upload whose end is long in coming."""
    yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nbegin '
    sent.set()
    await gate.event.wait()
    yield b"end\r\n--b--\r\n"


async def read_events(http: httpx2.AsyncClient, session_id: str, events: list[dict[str, Any]]) -> None:
    """Take events from where the last one was, until the stream ends in good order."""
    after = events[-1]["seq"] if events else 0
    async with http.stream("GET", f"/api/sessions/{session_id}/events", params={"after": after}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))  # noqa: PERF401 - others look at them meanwhile


async def heard_all(client: Client) -> None:
    """Read until the connection ends: that must have been told."""
    await client.read_on()
    assert client.close_code == 1001
    assert client.asides[-1]["type"] == "server_shutdown"
    assert client.asides[-1]["reconnect_after_ms"] > 0


async def children(service: Service) -> set[int]:
    """All processes that descend from the service."""
    found: set[int] = set()
    todo = [service.process.pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                new = {int(word) for word in task.read_text().split()} - found
                found |= new
                todo.extend(new)
    return found


async def refuses_what_is_new(service: Service, client: Client) -> None:
    """Over a new connection and over one that is open; what only looks is answered."""
    async with browser(service) as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "shutting_down")
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get(f"/api/sessions/{client.session_id}")).status_code == 200
        sent = await http.post(f"/api/sessions/{client.session_id}/messages", json={"content": "new"})
        assert (sent.status_code, sent.json()["code"]) == (503, "shutting_down")
        assert sent.headers["retry-after"]
    await client.say("new")
    error = await client.until("error")
    assert (error["code"], error["retryable"], error["resend_safe"]) == ("shutting_down", True, True)


async def test_everything_that_is_under_way_ends_or_goes_on_elsewhere(
    database_url: str, model: Narrator, start: StartService, ledger: Ledger, gate: Gate
) -> None:
    settings = {"MCP_CONFIG": ledger.config(), "TIMEOUTS__LEASE": LONG_LEASE, "TIMEOUTS__DRAIN": DRAIN}
    going, heir = [await start(database_url, **settings) for _ in range(2)]
    async with (
        crowd(going, 5) as clients,
        connected(going, await pondering(going)) as reflecting,
        browser(going) as http,
        asyncio.TaskGroup() as group,
    ):
        finishing, endless, queueing, calling, asking = clients
        for client, question in zip(clients, ("finishing", "endless", "first", "do calling", "do asking"), strict=True):
            await client.ask(question)
        queued = await queueing.ask("second", when_busy="queue")
        run_of = {client: client.events[0]["run_id"] for client in clients}
        await reflecting.ask("reflecting")
        events: list[dict[str, Any]] = []
        stream = group.create_task(read_events(http, finishing.session_id, events))
        path = f"/api/sessions/{await going.new_session()}"
        awaited = group.create_task(http.post(f"{path}/messages", json={"content": "awaited"}))
        paused_path = f"/api/sessions/{await going.new_session()}"
        paused = group.create_task(http.post(f"{paused_path}/messages", json={"content": "do asking"}))
        begun = asyncio.Event()
        form = {"content-type": "multipart/form-data; boundary=b"}
        upload = group.create_task(http.post(f"{path}/files", content=slowly(gate, begun), headers=form))
        for client in (finishing, endless):
            await client.until("text_delta")
        await asking.until("approval_required")
        await eventually(lambda: all(model.asked(question) for question in ("first", "awaited", "Ponder.")), 20)
        await eventually(lambda: len(model.asked("do asking")) == 2 and events, 20)
        await ledger.has("begun calling")
        await begun.wait()
        helpers = await children(going)
        assert helpers

        going.terminate()
        await asyncio.to_thread(eventually_not_ready, going)
        await refuses_what_is_new(going, finishing)
        gate.open()
        await asyncio.gather(*(heard_all(client) for client in (*clients, reflecting)))

        for client, text in ((finishing, "So far so good."), (calling, "Called."), (queueing, "So far so good.")):
            assert client.end(run_of[client])["finish_reason"] == "stop"
            assert client.text(run_of[client]) == text
        (interrupted,) = (event for event in endless.events if event["type"] == "interrupted")
        assert interrupted["by"] == "shutdown"
        assert endless.end(run_of[endless])["finish_reason"] == "interrupted"
        assert (await awaited).json()["message"]["content"] == "So far so good."
        assert (await upload).status_code == 201
        let_go = await paused
        assert (let_go.status_code, let_go.json()["code"]) == (503, "unavailable")
        await stream
        await going.ended()
        assert not [pid for pid in helpers if Path(f"/proc/{pid}").exists()]

        gate.later.set()
        for client in (queueing, asking, reflecting):
            await client.connect(heir)
        if not queueing.has_end(queued):
            await queueing.until("assistant_end", run_id=queued)
        assert queueing.text(queued) == "After it."
        await asking.send({"type": "approve", "tool_call_id": "r", "decision": "approve"})
        await asking.until("assistant_end")
        assert asking.text(run_of[asking]) == "Removed."
        await reflecting.until("post_response_complete")
        async with browser(heir) as elsewhere:
            rest = asyncio.create_task(read_events(elsewhere, finishing.session_id, events))
            await eventually(lambda: [event["seq"] for event in events] == list(range(1, finishing.position + 1)))
            rest.cancel()
            await asyncio.wait([rest])
        await heir.request("POST", f"{paused_path}/interrupt", json={})
    assert ledger.lines.count("remove asking") == 1
    await assert_nothing_in_progress(database_url, model, heir)


def eventually_not_ready(service: Service) -> None:
    """Return as soon as the service says that it takes nothing new."""
    with httpx2.Client(base_url=service.address, timeout=20) as http:
        while http.get("/readyz").status_code == 200:
            pass


async def test_who_asks_twice_does_not_wait_and_nothing_is_lost(
    database_url: str, model: Narrator, start: StartService, gate: Gate
) -> None:
    service = await start(database_url, TIMEOUTS__DRAIN=LONG_DRAIN)
    loop = asyncio.get_running_loop()
    async with crowd(service, 2) as clients, browser(service) as http, asyncio.TaskGroup() as group:
        for client in clients:
            await client.ask("endless")
            await client.until("text_delta")
        path = f"/api/sessions/{clients[0].session_id}/files"
        begun = asyncio.Event()
        form = {"content-type": "multipart/form-data; boundary=b"}
        upload = group.create_task(cut_off(http.post(path, content=slowly(gate, begun), headers=form)))
        await begun.wait()
        service.terminate()
        await asyncio.to_thread(eventually_not_ready, service)
        asked_again = loop.time()
        service.terminate()
        await asyncio.gather(*(heard_all(client) for client in clients))
        await service.ended()
        assert loop.time() - asked_again < SEEN_QUICKLY
        for client in clients:
            (interrupted,) = (event for event in client.events if event["type"] == "interrupted")
            assert interrupted["by"] == "shutdown"
        gate.open()
        await upload
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM files") == 0
    await assert_nothing_in_progress(database_url, model)


async def cut_off(request: Any) -> None:
    """A request that is answered with an error or not at all."""
    with contextlib.suppress(httpx2.TransportError):
        assert (await request).status_code >= 500


async def test_a_service_that_has_nothing_to_do_goes_at_once(
    database_url: str, model: Narrator, start: StartService
) -> None:
    service = await start(database_url, TIMEOUTS__DRAIN=LONG_DRAIN)
    loop = asyncio.get_running_loop()
    async with connected(service) as client, connected(service) as silent:
        silent.socket.transport.pause_reading()
        began = loop.time()
        service.terminate()
        await heard_all(client)
        await service.ended()
        assert loop.time() - began < SEEN_QUICKLY
        await silent.cut()
        with pytest.raises((ConnectionClosed, OSError)):
            await silent.connect(service)
    await assert_nothing_in_progress(database_url, model)
