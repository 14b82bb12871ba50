"""More scripts than places: they wait, which costs none of their time, and nobody waits for ever."""

import asyncio
from collections.abc import Mapping

import pytest

from services.scripts.places import Hurry
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptError, ScriptLimits, ScriptResult
from services.scripts.values import Json
from tests.integration.scripts.conftest import four_characters_each
from tests.integration.scripts.notebook import Notebook
from tests.waiting import eventually

COMPUTE = "for _ in range(1_000_000):\n    pass\n"
SPIN = "ctx.set_variable('begun', True)\nwhile True: pass"
FOR_A_MINUTE = ScriptLimits(cpu_seconds=60, timeout_ms=60_000)


def sandbox_of(places: int, patience: float = 60.0) -> Sandbox:
    return Sandbox(count_tokens=four_characters_each, max_workers=places, patience=patience)


@pytest.mark.parametrize("places", [1, 2])
async def test_more_scripts_than_places_all_run_each_with_its_whole_time(places: int) -> None:
    limits = ScriptLimits(cpu_seconds=5, timeout_ms=1_000)
    async with sandbox_of(places) as sandbox:
        runs = [
            sandbox.run(f"{COMPUTE}ctx.set_output('n', {n})", Notebook(), limits, may_use_ai=False) for n in range(80)
        ]
        results = await asyncio.gather(*runs)
    assert [(result.outputs, result.error) for result in results] == [({"n": n}, None) for n in range(80)]


async def test_a_script_that_finds_no_place_gives_up_and_says_why(notebook: Notebook) -> None:
    async with sandbox_of(1, patience=0.2) as sandbox:
        await sandbox.start()
        first = asyncio.ensure_future(sandbox.run(SPIN, notebook, FOR_A_MINUTE, may_use_ai=False))
        await eventually(lambda: notebook.variables)
        second = await sandbox.run("ctx.log('x')", notebook, may_use_ai=False)
        assert second.error == ScriptError(
            "NoPlace", "found no place to run within 0.2 s: too many scripts run at once"
        )
        first.cancel()
        await asyncio.wait([first])
        assert (await sandbox.run("ctx.log('x')", notebook, may_use_ai=False)).logs == ("x",)


async def test_who_stops_waiting_for_a_place_takes_none(notebook: Notebook) -> None:
    async with sandbox_of(1) as sandbox:
        first = asyncio.ensure_future(sandbox.run("ctx.generate('x')", notebook, FOR_A_MINUTE, may_use_ai=True))
        await asyncio.wait_for(notebook.asked.wait(), 20)
        waiting = [asyncio.ensure_future(sandbox.run("", notebook, may_use_ai=False)) for _ in range(10)]
        await asyncio.sleep(0)
        for number, run in enumerate(waiting):
            if number % 2:
                run.cancel()
        notebook.answers.put_nowait("x")
        # The place is given to one of them in the very moment in which all are told to stop.
        await first
        for run in waiting:
            run.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await sandbox.run("ctx.log('x')", notebook, may_use_ai=False)).logs == ("x",)


class Family:
    """A host whose modules run each other, as deep as they like."""

    def __init__(self, sandbox: Sandbox, scripts: Mapping[str, str], limits: ScriptLimits) -> None:
        self.sandbox = sandbox
        self.scripts = scripts
        self.limits = limits
        self.hurries = {name: Hurry() for name in scripts}
        self.tasks: dict[str, asyncio.Task[ScriptResult]] = {}

    def start(self, name: str) -> asyncio.Task[ScriptResult]:
        """Its one run."""
        if name not in self.tasks:
            run = self.sandbox.run(self.scripts[name], self, self.limits, may_use_ai=True, hurry=self.hurries[name])
            self.tasks[name] = asyncio.ensure_future(run)
        return self.tasks[name]

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Run a module for another one."""
        assert name == "run_module"
        module = str(arguments["name"])
        self.hurries[module].set()
        return dict((await asyncio.shield(self.start(module))).outputs)


CHAIN = {
    "a": "ctx.set_output('t', ctx.run_module('b'))",
    "b": "ctx.set_output('t', ctx.run_module('c'))",
    "c": f"{COMPUTE}ctx.set_output('t', 'deep')",
}


@pytest.mark.parametrize("first", ["abc", "cba", "bca"])
async def test_scripts_that_wait_for_scripts_without_a_place_do_not_wait_for_ever(first: str) -> None:
    async with sandbox_of(1, patience=30) as sandbox:
        families = [Family(sandbox, CHAIN, ScriptLimits(timeout_ms=5_000)) for _ in range(8)]
        # All of them at once, as the modules of a stage are.
        runs = [family.start(name) for name in first for family in families]
        results = await asyncio.gather(*runs)
    assert [result.error for result in results] == [None] * len(runs)
    assert [family.tasks["a"].result().outputs for family in families] == [{"t": {"t": {"t": "deep"}}}] * 8


async def test_the_time_of_a_module_that_is_run_is_not_that_of_the_script_that_runs_it() -> None:
    async with sandbox_of(1) as sandbox:
        scripts = {"a": "ctx.set_output('t', ctx.run_module('b'))", "b": COMPUTE * 30 + "ctx.set_output('t', 1)"}
        family = Family(sandbox, scripts, ScriptLimits(cpu_seconds=60, timeout_ms=60_000))
        result = await sandbox.run(scripts["a"], family, ScriptLimits(timeout_ms=500), may_use_ai=False)
    assert (result.outputs, result.error) == ({"t": {"t": 1}}, None)
