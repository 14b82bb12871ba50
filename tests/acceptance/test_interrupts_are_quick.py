"""An interrupt stops the run and the model at once, in whatever phase and however much goes on beside it."""

import asyncio
import sys
import time
from collections.abc import Sequence

from tests.acceptance.aftermath import assert_nothing_in_progress, figures, p95
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.fakes.script import Endless, Hang, Text
from tests.waiting import eventually

STREAMS = 100
EACH = 20
"""Interrupts in each phase."""
GENEROUS = 1.0
"""Seconds at the 95th percentile, with all the streams, clients and the model on one machine that is busy anyhow."""


class Stopwatch:
    """Times from the client's frame to what it brings about, by phase."""

    def __init__(self, model: Narrator) -> None:
        self.model = model
        self.told: dict[str, list[float]] = {}
        self.closed: dict[str, list[float]] = {}
        self.stopped: list[tuple[Client, str]] = []

    async def interrupt(self, client: Client, run_id: str, phase: str, *, name: str = "") -> float:
        """Stop the run; the monotonic time at which it was asked for."""
        began = time.monotonic()
        await client.interrupt(run_id)
        interrupted = await client.until("interrupted", run_id=run_id)
        self.told.setdefault(name or phase, []).append(time.monotonic() - began)
        assert interrupted["phase"] == phase
        assert (await client.next())["type"] == "assistant_end"
        assert client.end(run_id)["finish_reason"] == "interrupted"
        self.stopped.append((client, run_id))
        return began

    async def model_left(self, phase: str, began: float, question: str) -> None:
        """Note when the model's connection of the newest such question was closed."""
        request = self.model.asked(question)[-1]
        async with asyncio.timeout(10):
            self.closed.setdefault(phase, []).append(await request.closed - began)
        assert request.ended_by == "client"

    def tell(self) -> None:
        for what, times in (("interrupted", self.told), ("the model is left", self.closed)):
            for phase, seconds in times.items():
                sys.stdout.write(figures(f"{what}, {phase}", seconds))
            assert p95([one for seconds in times.values() for one in seconds]) < GENEROUS


async def test_interrupts_among_a_hundred_streams_stop_run_and_model_in_every_phase(
    database_url: str, model: Narrator, start: StartService
) -> None:
    service = await start(database_url, LIMITS__RUNS_PER_USER=300, LIMITS__CONNECTIONS_PER_USER=300)
    watch = Stopwatch(model)
    async with crowd(service, STREAMS) as streaming, crowd(service, EACH) as others:
        runs = [await stream(model, client, f"stream {number}") for number, client in enumerate(streaming)]
        await interrupt_streaming(model, watch, streaming, runs)
        await interrupt_waiting(model, watch, others)
        await interrupt_composing(model, watch, others)
        await interrupt_queued(model, watch, others)
        for client in (*streaming, *others):
            if client.events[-1]["type"] != "assistant_end":
                await client.interrupt()
                await client.until("assistant_end")
        for client, run_id in watch.stopped:
            assert client.of_run(run_id)[-1]["type"] == "assistant_end", "something came after the end"
        for client in others[:5]:
            run_id = await client.ask("are you still there?")
            await client.until("post_response_complete", run_id=run_id)
        watch.tell()
    await assert_nothing_in_progress(database_url, model, service)


async def test_of_messages_in_haste_only_the_last_one_is_answered(
    database_url: str, model: Narrator, start: StartService
) -> None:
    service = await start(database_url)
    model.tell("endless", Endless("and ", 0.02))
    async with connected(service) as client:
        for number in range(5):
            await client.say("endless", f"hasty {number}")
        await client.say("the last", "the last")
        await client.until("post_response_complete")
        assert client.end(str(client.accepted("the last")))["finish_reason"] == "stop"
        assert [role for role, _ in await service.history(client.session_id) if role == "user"] == ["user"] * 6
    await assert_nothing_in_progress(database_url, model, service)


async def stream(model: Narrator, client: Client, question: str) -> str:
    model.tell(question, Text("Well, "), Endless("word ", 0.1))
    run_id = await client.ask(question)
    await client.until("text_delta", run_id=run_id)
    return run_id


async def interrupt_streaming(model: Narrator, watch: Stopwatch, clients: Sequence[Client], runs: list[str]) -> None:
    for number, client in enumerate(clients[: 2 * EACH]):
        began = await watch.interrupt(client, runs[number], "streaming")
        await watch.model_left("streaming", began, f"stream {number}")
        await stream(model, client, f"stream {number}")  # so that there are as many as before


async def interrupt_waiting(model: Narrator, watch: Stopwatch, clients: Sequence[Client]) -> None:
    for number, client in enumerate(clients):
        question = f"silence {number}"
        model.tell(question, Hang())
        run_id = await client.ask(question)
        await client.until("assistant_start", run_id=run_id)
        await eventually(lambda question=question: model.asked(question), 10)
        began = await watch.interrupt(client, run_id, "waiting")
        await watch.model_left("waiting", began, question)


async def interrupt_composing(model: Narrator, watch: Stopwatch, clients: Sequence[Client]) -> None:
    """A run that asks how much an unknown model can take is still being composed."""
    model.model_list.clear()
    for number, client in enumerate(clients):
        asked, left = model.asked_model_list, len(model.left_model_list)
        run_id = await client.ask("which model?", model=f"unknown-{number}")
        await eventually(lambda asked=asked: model.asked_model_list > asked, 10)
        began = await watch.interrupt(client, run_id, "composing")
        await eventually(lambda left=left: len(model.left_model_list) > left, 10)
        watch.closed.setdefault("composing", []).append(model.left_model_list[-1] - began)
    model.model_list.set()
    assert not model.asked("which model?")


async def interrupt_queued(model: Narrator, watch: Stopwatch, clients: Sequence[Client]) -> None:
    for number, client in enumerate(clients):
        running = await stream(model, client, f"speech {number}")
        queued = await client.ask("may I?", when_busy="queue")
        await watch.interrupt(client, queued, "composing", name="queued")
        await client.until("text_delta", run_id=running)
    assert not model.asked("may I?")
