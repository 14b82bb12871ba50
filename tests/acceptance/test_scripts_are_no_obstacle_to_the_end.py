"""Whatever scripts do when the service is asked to stop: it stops, in good order, and nothing of them is left."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Hang, Text
from tests.integration.scripts.processes import computing, workers
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SPIN = "while True:\n    pass"
PONDER = 'ctx.generate("Ponder.")'


class Stage:
    """A running service and a model server, and what can be made of them by REST."""

    def __init__(self, service: Service, model: Narrator) -> None:
        self.service = service
        self.model = model
        self._asking: list[asyncio.Task[Any]] = []

    def ask(self, path: str, **body: Any) -> None:
        """Ask something whose answer will not come, since the service ends."""
        self._asking.append(asyncio.create_task(self.service.request("POST", path, json=body)))

    async def leave(self) -> None:
        """Wait for none of these answers any more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def say(self, script: str, **fields: Any) -> None:
        """Say something to a persona with one module of this script."""
        module = {"name": "busy", "type": "advanced", "script": script, "timeout_ms": 60_000, **fields}
        await self.service.request("POST", "/api/modules", json=module)
        persona = await self.service.request("POST", "/api/personas", json={"name": "Busy", "template": "@busy"})
        session = await self.service.request("POST", "/api/sessions", json={"persona_id": persona["id"]})
        self.ask(f"/api/sessions/{session['id']}/messages", content="Hello")

    async def until_computing(self) -> None:
        await eventually(lambda: computing(self.service.process.pid), 20)

    async def until_asked(self) -> None:
        await eventually(lambda: self.model.asked("Ponder."), 20)


async def just_started(stage: Stage) -> None:
    """The signal comes with the first word of the service."""


async def first_script(stage: Stage) -> None:
    """The pool of processes is being opened, or was just now."""
    stage.ask("/api/modules/test-script", script="ctx.log('x')")
    await eventually(lambda: workers(stage.service.process.pid), 20)


async def idle(stage: Stage) -> None:
    answer = await stage.service.request("POST", "/api/modules/test-script", json={"script": "ctx.log('x')"})
    assert answer["success"], answer


async def trying_a_script_that_computes(stage: Stage) -> None:
    stage.ask("/api/modules/test-script", script=SPIN)
    await stage.until_computing()


async def composing_with_a_script_that_computes(stage: Stage) -> None:
    await stage.say(SPIN)
    await stage.until_computing()


async def composing_with_a_script_that_asks(stage: Stage) -> None:
    await stage.say(PONDER)
    await stage.until_asked()


async def after_a_reply_with_a_script_that_computes(stage: Stage) -> None:
    await stage.say(SPIN, execution_context="POST_RESPONSE")
    await stage.until_computing()


async def after_a_reply_with_a_script_that_asks(stage: Stage) -> None:
    await stage.say(PONDER, execution_context="POST_RESPONSE")
    await stage.until_asked()


MOMENTS: list[Callable[[Stage], Awaitable[None]]] = [
    just_started,
    first_script,
    idle,
    trying_a_script_that_computes,
    composing_with_a_script_that_computes,
    composing_with_a_script_that_asks,
    after_a_reply_with_a_script_that_computes,
    after_a_reply_with_a_script_that_asks,
]


@asynccontextmanager
async def stage_of(
    start: StartService, model: Narrator, database_url: str, directory: Path
) -> AsyncGenerator[Stage, None]:
    """A service whose scripts may compute for a minute, and which keeps temporary files in that directory."""
    model.tell("Ponder.", Hang())
    model.tell("Hello", Text("Well."))
    service = await start(
        database_url,
        TMPDIR=directory,
        TIMEOUTS__DRAIN=1,
        SANDBOX__CPU_SECONDS=60,
        SANDBOX__TIMEOUT_MS=60_000,
    )
    stage = Stage(service, model)
    try:
        yield stage
    finally:
        await stage.leave()


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
async def test_a_signal_ends_service_and_scripts(
    moment: Callable[[Stage], Awaitable[None]],
    start: StartService,
    model: Narrator,
    database_url: str,
    tmp_path: Path,
) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    async with stage_of(start, model, database_url, directory) as stage:
        await moment(stage)
        running = workers(stage.service.process.pid)
        stage.service.terminate()
        await stage.service.ended()
    await eventually(lambda: not any(Path(f"/proc/{process}").exists() for process in running))
    assert list(directory.iterdir()) == []


async def test_a_signal_before_the_service_is_ready_finds_it_at_any_step(
    model: Narrator, database_url: str, tmp_path: Path
) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    settings = {"DATABASE_URL": database_url, "TMPDIR": str(directory), "DEFAULT_PROVIDER": "demo"}
    service = Service(tmp_path / "service", settings)
    try:
        await eventually(lambda: list(directory.iterdir()) or service.process.poll() is not None, 40)
        service.terminate()
        await service.ended()
    finally:
        service.kill()
    assert list(directory.iterdir()) == []


async def test_the_hardening_of_scripts_is_told_before_the_service_is_ready(
    start: StartService, database_url: str
) -> None:
    service = await start(database_url, LOG_LEVEL="info")
    before, _, _ = service.log.partition("Colloquy is ready: ")
    told = [line for line in before.splitlines() if "scripts: processes are " in line]
    assert len(told) == 1, service.log
