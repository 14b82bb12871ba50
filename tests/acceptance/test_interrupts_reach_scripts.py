"""An interrupt ends a script at once: in each stage that runs scripts, whether it computes or waits for a model."""

import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.acceptance.aftermath import assert_nothing_in_progress, figures, p95
from tests.acceptance.client import Client, connected
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Hang, Text
from tests.integration.scripts.processes import computing, workers
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TIMES = 5
"""Interrupts in each stage."""
GENEROUS = 1.0
"""Seconds at the 95th percentile, on a machine that is busy anyhow."""

SPIN = "while True:\n    pass"
PONDER = 'ctx.generate("Ponder.")'


@dataclass(frozen=True, slots=True)
class Case:
    """A persona whose only module does this, and the stage in which it does."""

    stage: int
    script: str
    context: str = "IMMEDIATE"

    @property
    def phase(self) -> str:
        """Where the interrupt finds the run."""
        return "composing" if self.stage < 3 else "post_response"

    @property
    def asks(self) -> bool:
        """Whether the model is to be asked before the interrupt; the script computes otherwise."""
        return self.script == PONDER


CASES = [
    Case(1, SPIN),
    Case(1, "ctx.run_module('spin')"),
    Case(2, PONDER),
    Case(2, f"if ctx.get_message_count() < 0:\n    {PONDER}\n{SPIN}"),
    Case(4, SPIN, "POST_RESPONSE"),
    Case(5, PONDER, "POST_RESPONSE"),
    Case(5, f"if ctx.get_message_count() < 0:\n    {PONDER}\n{SPIN}", "POST_RESPONSE"),
]


@pytest.mark.parametrize("case", CASES, ids=[f"stage {case.stage}: {case.script[:24]!r}" for case in CASES])
async def test_an_interrupt_ends_script_and_run(
    case: Case, database_url: str, model: Narrator, start: StartService
) -> None:
    service = await start(
        database_url, SANDBOX__CPU_SECONDS=60, SANDBOX__TIMEOUT_MS=60_000, SANDBOX__AI_TIMEOUT_MS=60_000
    )
    model.tell("Ponder.", Hang())
    model.tell("Hello", Text("Well."))
    told: list[float] = []
    gone: list[float] = []
    async with session_with(service, case) as client:
        for number in range(TIMES):
            run_id = await client.ask("Hello")
            await under_way(case, service, model, number)
            busy = computing(service.process.pid)
            began = time.monotonic()
            await client.interrupt(run_id)
            interrupted = await client.until("interrupted", run_id=run_id)
            told.append(time.monotonic() - began)
            assert interrupted["phase"] == case.phase
            assert case.stage == max(event.get("stage", 0) for event in client.of_run(run_id))
            if case.asks:
                await model.asked("Ponder.")[number].closed
            await eventually(lambda busy=busy: not busy & workers(service.process.pid))
            gone.append(time.monotonic() - began)
            if case.phase == "composing":
                assert (await client.next())["type"] == "assistant_end"
            assert client.end(run_id)["finish_reason"] == ("interrupted" if case.phase == "composing" else "stop")
    sys.stdout.write(figures(f"interrupted in stage {case.stage}", told) + figures("the script is gone", gone))
    assert p95(told) < GENEROUS
    await assert_nothing_in_progress(database_url, model, service)


async def under_way(case: Case, service: Service, model: Narrator, number: int) -> None:
    """Return when the script does what it is there for."""
    if case.asks:
        await eventually(lambda: len(model.asked("Ponder.")) > number, 20)
    else:
        await eventually(lambda: computing(service.process.pid), 20)


@asynccontextmanager
async def session_with(service: Service, case: Case) -> AsyncGenerator[Client, None]:
    """A client of a session with the persona of that case."""
    spin = {"name": "spin", "type": "advanced", "script": SPIN, "execution_context": "ON_DEMAND"}
    module = {"name": "busy", "type": "advanced", "script": case.script, "execution_context": case.context}
    for one in (spin, module):
        await service.request("POST", "/api/modules", json=one)
    persona = await service.request("POST", "/api/personas", json={"name": "Busy", "template": "@busy"})
    session = await service.request("POST", "/api/sessions", json={"persona_id": persona["id"]})
    async with connected(service, session["id"]) as client:
        yield client
