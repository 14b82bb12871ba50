"""Tools act at most once, and whatever stops a reply with tools, the next one can be asked for."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import assert_nothing_in_progress, database, figures
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Hang, Text, call
from tests.fakes.strict import StrictOpenAIFake
from tests.ledger import Ledger
from tests.waiting import eventually

LOOPS = 12
"""Clients whose models call one tool after the other, so that they are anywhere in it when something happens."""
STEPS = 40


class StrictNarrator(Narrator, StrictOpenAIFake):
    """Answers by what it was asked last, and refuses conversations that are not legal."""


@pytest.fixture
async def model() -> AsyncGenerator[StrictNarrator, None]:
    async with StrictNarrator() as narrator:
        yield narrator
        assert narrator.refusals == []


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


class Moment:
    """A client at a certain point of a reply with tools."""

    def __init__(self, name: str, client: Client, ledger: Ledger) -> None:
        self.name = name
        self.client = client
        self.run_id = ""
        self._ledger = ledger

    async def reach(self) -> None:
        """Ask, and return when the reply has got there."""
        client, name = self.client, self.name
        self.run_id = await client.ask(f"do {name}")
        match name:
            case "before":
                await client.until("text_delta")
            case "starting":
                await client.until("tool_start")
            case "within":
                await client.until("tool_done")
                await self._ledger.has(f"begun {name}")
            case "between":
                await client.until("tool_start", count=2)
                await self._ledger.has(f"begun {name}")
            case "after":
                await client.until("tool_done", count=2)
            case "speaking":
                await client.until("text_delta", count=2)
            case _:
                await client.until("approval_required")

    def told(self, model: Narrator) -> list[str]:
        """What the model was told of the calls when it was asked next."""
        asked = model.asked(f"and now, {self.name}?")[-1].body["messages"]
        return [message["content"] for message in asked if message["role"] == "tool"]


MOMENTS = ("before", "starting", "within", "between", "after", "speaking", "asking")


def tell(model: Narrator) -> None:
    """What the model says at each moment."""
    for name in MOMENTS:
        note, wait = call(0, "ledger__note", {"text": name}, id="n"), call(1, "ledger__wait", {"text": name}, id="w")
        model.tell(f"do {name}", Text("Let me see. "), note, wait)
        model.tell(f"{name} is there", Text("So. "), Hang())
    model.tell("do before", Text("Let me see. "), Hang())
    model.tell("do between", Text("First. "), call(0, "ledger__note", {"text": "between"}, id="n"))
    model.tell("note done: between", call(0, "ledger__wait", {"text": "between"}, id="w"))
    model.tell("after is there", Hang())
    model.tell("do asking", call(0, "ledger__remove", {"text": "asking"}, id="r"))
    model.tell("remove done: asking", Text("Removed."))
    for loop in range(LOOPS):
        steps = [f"{loop}.{step}" for step in range(STEPS)]
        model.tell(f"loop {loop}", call(0, "ledger__note", {"text": steps[0]}, id=steps[0]))
        for step, following in pairwise(steps):
            model.tell(
                f"note done: {step}", Text(f"{step} "), call(0, "ledger__note", {"text": following}, id=following)
            )
        model.tell(f"note done: {steps[-1]}", Text("All done."))


async def started(start: StartService, database_url: str, ledger: Ledger) -> Service:
    return await start(
        database_url,
        MCP_CONFIG=ledger.config(),
        TIMEOUTS__TOOL_WAIT=30,
        TIMEOUTS__LEASE=2,
        LIMITS__MAX_TURNS=STEPS + 5,
        TITLES__ENABLED="false",
    )


async def reach(moments: list[Moment], loops: list[Client], ledger: Ledger) -> dict[int, str]:
    """Bring every client to its moment and the others on their way; returns the runs of these."""
    for gate in ("after", "speaking"):
        ledger.allow(gate)
    await asyncio.gather(*(moment.reach() for moment in moments))
    runs = await asyncio.gather(*(client.ask(f"loop {number}") for number, client in enumerate(loops)))
    chance = random.Random(7)
    for client in loops:
        await client.until("tool_done", "assistant_end", count=chance.randint(1, 5))
    return dict(enumerate(runs))


def assert_once(ledger: Ledger) -> None:
    """Nothing acted twice, and what was under way was stopped or died."""
    twice = [line for line, count in Counter(ledger.lines).items() if count > 1]
    assert twice == []


async def asked_on(moments: list[Moment], loops: list[Client], model: Narrator) -> None:
    """Everybody says something more, which the model must find legal."""
    for moment in moments:
        model.tell(f"and now, {moment.name}?", Text("As you like."))
        run_id = await moment.client.ask(f"and now, {moment.name}?")
        await moment.client.until("assistant_end", run_id=run_id)
        assert moment.client.text(run_id) == "As you like."
    for client in loops:
        run_id = await client.ask("and you?")
        await client.until("assistant_end", run_id=run_id)
        assert client.end(run_id)["finish_reason"] == "stop"


def assert_told(moments: list[Moment], model: Narrator) -> None:
    """The model knows of every call whether it was made."""
    told = {moment.name: moment.told(model) for moment in moments}
    assert told["before"] == []
    assert len(told["starting"]) == 2
    assert told["within"][0] == "note done: within"
    assert "is not known" in told["within"][1]
    assert told["between"][0] == "note done: between"
    assert "is not known" in told["between"][1]
    for name in ("after", "speaking"):
        assert told[name] == [f"note done: {name}", f"{name} is there"]


def parts_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The calls of a stored reply and how they ended."""
    return [(part["id"], part["status"]) for part in message["parts"] if part["type"] == "tool_result"]


async def test_interrupts_at_any_point_leave_a_conversation_that_can_go_on(
    database_url: str, model: StrictNarrator, start: StartService, ledger: Ledger
) -> None:
    tell(model)
    service = await started(start, database_url, ledger)
    async with crowd(service, len(MOMENTS)) as first, crowd(service, LOOPS) as loops:
        moments = [Moment(name, client, ledger) for name, client in zip(MOMENTS, first, strict=True)]
        runs = await reach(moments, list(loops), ledger)
        loop = asyncio.get_running_loop()
        took: list[float] = []
        for client, run_id in [(m.client, m.run_id) for m in moments] + [(loops[n], run) for n, run in runs.items()]:
            begun = loop.time()
            await client.interrupt(run_id)
            await client.until("interrupted", "error", run_id=None)
            took.append(loop.time() - begun)
        sys.stdout.write(figures("interrupted among tools", took))
        for moment in moments:
            await moment.client.until("assistant_end") if not moment.client.has_end(moment.run_id) else None
            phase = {"before": "streaming", "after": "streaming", "speaking": "streaming"}.get(moment.name, "tool")
            (interrupted,) = (e for e in moment.client.of_run(moment.run_id) if e["type"] == "interrupted")
            assert interrupted["phase"] == phase, moment.name
        await asked_on(moments, list(loops), model)
        assert_told(moments, model)
        assert moments[-1].told(model) == ["[Not made: the reply was stopped before. Nothing was done.]"]
    await eventually(lambda: "cancelled within" in ledger.lines)
    assert_once(ledger)
    assert "remove asking" not in ledger.lines
    await assert_nothing_in_progress(database_url, model, service)


async def test_a_service_that_is_killed_at_any_point_repeats_no_call_and_goes_on(
    database_url: str, model: StrictNarrator, start: StartService, ledger: Ledger
) -> None:
    tell(model)
    service = await started(start, database_url, ledger)
    async with crowd(service, len(MOMENTS)) as first, crowd(service, LOOPS) as loops:
        moments = [Moment(name, client, ledger) for name, client in zip(MOMENTS, first, strict=True)]
        runs = await reach(moments, list(loops), ledger)
        service.kill()
        for client in (*first, *loops):
            await client.read_on()
        service = await started(start, database_url, ledger)
        for client in (*first, *loops):
            await client.come_back(service)

        *ended, paused = moments
        assert not paused.client.has_end(paused.run_id)
        await paused.client.send({"type": "approve", "tool_call_id": "r", "decision": "approve"})
        await paused.client.until("assistant_end", run_id=paused.run_id)
        assert paused.client.end(paused.run_id)["finish_reason"] == "stop"
        assert paused.client.text(paused.run_id) == "Removed."

        for client, run_id in [(m.client, m.run_id) for m in ended] + [(loops[n], run) for n, run in runs.items()]:
            if not client.has_end(run_id):
                await client.until("assistant_end", run_id=run_id)
            assert client.end(run_id)["finish_reason"] in ("interrupted", "stop")
        await asked_on(moments, list(loops), model)
        assert_told(ended, model)
        assert paused.told(model) == ["remove done: asking"]
        for moment in (ended[2], ended[3]):
            page = await service.request("GET", f"/api/sessions/{moment.client.session_id}/messages?limit=100")
            assert parts_of(page["items"][2]) == [("n", "completed"), ("w", "interrupted")]
    assert_once(ledger)
    assert ledger.lines.count("remove asking") == 1
    await assert_nothing_in_progress(database_url, model, service)


async def test_a_sleeper_that_awakes_does_not_make_a_call_that_its_heir_has_made(
    database_url: str, model: StrictNarrator, start: StartService, ledger: Ledger
) -> None:
    tell(model)
    sleeper = await started(start, database_url, ledger)
    heir = await started(start, database_url, ledger)
    async with connected(sleeper) as near, connected(heir, near.session_id) as far:
        run_id = await near.ask("do asking")
        await far.until("approval_required", run_id=run_id)
        await sleeper.freeze()
        async with database(database_url) as connection:
            first = await connection.fetchval("SELECT replica_id FROM journals WHERE run_id = $1::uuid", run_id)
            await eventually(
                lambda: connection.fetchval(
                    "SELECT replica_id <> $2 FROM journals WHERE run_id = $1::uuid", run_id, first
                ),
                20,
            )
        await far.send({"type": "approve", "tool_call_id": "r", "decision": "approve"})
        await far.until("assistant_end", run_id=run_id)
        assert far.end(run_id)["finish_reason"] == "stop"
        sleeper.thaw()
        await near.until("assistant_end", run_id=run_id)
        assert near.text(run_id) == "Removed."
        again = await near.ask("and you?")
        await near.until("assistant_end", run_id=again)
    assert ledger.lines.count("remove asking") == 1
    await assert_nothing_in_progress(database_url, model, sleeper, heir)
