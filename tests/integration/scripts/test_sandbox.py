"""Scripts run, are told apart, are limited and can be stopped; the pool survives all of it."""

import asyncio
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest

from services.errors import ProviderUnreachable, ShuttingDown
from services.hardening import Hardening
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptError, ScriptFault, ScriptLimits
from tests.integration.scripts.conftest import four_characters_each
from tests.integration.scripts.notebook import Notebook
from tests.integration.scripts.processes import computing, workers
from tests.waiting import eventually

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

QUICK = ScriptLimits(cpu_seconds=0.2)
PATIENT = ScriptLimits(cpu_seconds=20, timeout_ms=30_000)


async def test_the_script_of_the_manual_runs(sandbox: Sandbox, notebook: Notebook) -> None:
    notebook.variables["user_name"] = "Ada"
    notebook.answers.put_nowait("cheerful")
    result = await sandbox.run(
        """
name = ctx.get_variable("user_name", "friend")
recent = ctx.get_raw_recent_messages(2)
mood = ctx.generate("In one word, the mood of this conversation:", ctx.to_json(recent), temperature=0.1)
ctx.set_output("greeting", f"Hello, {name}! You seem {mood}.")
ctx.log("done")
print("printed", len(recent))
""",
        notebook,
        may_use_ai=True,
    )
    assert result.error is None
    assert result.outputs == {"greeting": "Hello, Ada! You seem cheerful."}
    assert (result.printed, result.logs, result.calls) == ("printed 2\n", ("done",), 6)
    assert notebook.calls[-1][1] == {
        "instructions": "In one word, the mood of this conversation:",
        "input": '[{"role": "user", "content": "message 0"}, {"role": "user", "content": "message 1"}]',
        "provider": None,
        "model": None,
        "controls": {"temperature": 0.1},
    }


async def test_what_a_script_did_before_its_error_is_kept(sandbox: Sandbox, notebook: Notebook) -> None:
    result = await sandbox.run(
        'print("a")\nctx.set_output("x", 1)\ndef f(n):\n    return 1 / n\nf(0)', notebook, may_use_ai=False
    )
    assert result.error == ScriptError("ZeroDivisionError", "division by zero", 4, 12)
    assert (result.outputs, result.printed) == ({"x": 1}, "a\n")


@pytest.mark.parametrize(
    ("script", "kind", "message", "line", "column"),
    [
        ("x = (", "SyntaxError", "unexpected EOF while parsing", 1, 6),
        ("class A(B): pass", "NotImplementedError", "scripts cannot use class inheritance and metaclasses", 1, 1),
        ("é = 'ü'; ctx.nope(é)", "AttributeError", "ctx has no function 'nope'", 1, 10),
        ("\n  \nctx._secret()", "AttributeError", "_secret", 3, 1),
        ("nope(1)", "NameError", "name 'nope' is not defined", 1, 1),
        ("nope", "NameError", "name 'nope' is not defined", 1, 1),
        ("ctx.get_variable()", "TypeError", "ctx.get_variable(): missing a required argument: 'name'", 1, 1),
        ("x = 1\nctx.run_module('m')", "ValueError", "there is no module m", 2, 1),
        ("ctx.generate('x')", "RuntimeError", "ctx.generate() asks a model, which this script may not do here", 1, 1),
        ("sorted([1], key=lambda n: ctx.log(n))", "NotImplementedError", "call it in a loop", 1, 27),
        ("raise ValueError('a', 1)", "RuntimeError", "exceptions can only be called with", None, None),
        ("eval('ctx.nope()')", "AttributeError", "ctx has no function 'nope'", 1, 1),
        ("import os\nos.getenv('HOME')", "RuntimeError", "", 2, 1),
    ],
)
async def test_errors_are_told_with_their_place(
    sandbox: Sandbox, notebook: Notebook, script: str, kind: str, message: str, line: int | None, column: int | None
) -> None:
    error = (await sandbox.run(script, notebook, may_use_ai=False)).error
    assert error
    assert (error.type, error.line, error.column) == (kind, line, column)
    assert message in error.message


@pytest.mark.parametrize(
    ("script", "limits", "kind", "message", "line"),
    [
        ("while True: pass", QUICK, "TimeoutError", "computed for more than 0.2 s", None),
        ("x = 1\n\nctx.log(x)\nwhile x: pass", QUICK, "TimeoutError", "0.2 s, after ctx.log() in line 3", 3),
        ("x = 'a' * 10**9", QUICK, "MemoryError", "used more than 32 MiB of memory", 1),
        ("\nl = list(range(10**7))", ScriptLimits(memory_bytes=2**20), "MemoryError", "more than 1 MiB", 2),
        ("def f(): f()\nf()", ScriptLimits(recursion=20), "RecursionError", "recursion depth", 1),
        ("while True:\n  ctx.log('')", ScriptLimits(host_calls=5), "RuntimeError", "ctx more than 5 times", 2),
        ("print('x' * 99)", ScriptLimits(printed_bytes=50), "MemoryError", "printed more than 50 bytes", None),
        ("f = 1\nctx.log(f)\nprint('x' * 99)", ScriptLimits(printed_bytes=50), "MemoryError", "ctx.log() in line 2", 2),
        ("ctx.log('x' * 99)", ScriptLimits(printed_bytes=50), "ValueError", "log is larger than 50 bytes", 1),
        ("ctx.set_output('x', 'x' * 99)", ScriptLimits(output_bytes=50), "ValueError", "larger than 50 bytes", 1),
        ("x = 1" * 50, ScriptLimits(source_bytes=50), "ValueError", "the script is larger than 50 bytes", None),
        ("ctx.generate('x')", ScriptLimits(timeout_ms=50), "TimeoutError", "took longer than 0.05 s", 1),
    ],
)
async def test_a_limit_that_is_hit_is_an_error_with_its_place(
    sandbox: Sandbox, notebook: Notebook, script: str, limits: ScriptLimits, kind: str, message: str, line: int | None
) -> None:
    error = (await sandbox.run(script, notebook, limits, may_use_ai=True)).error
    assert error
    assert (error.type, error.line) == (kind, line)
    assert message in error.message


async def test_the_limit_of_calls_cannot_be_caught(sandbox: Sandbox, notebook: Notebook) -> None:
    script = "while True:\n    try:\n        ctx.log('')\n    except BaseException:\n        pass"
    result = await sandbox.run(script, notebook, ScriptLimits(host_calls=7), may_use_ai=False)
    assert result.error == ScriptError("RuntimeError", "called ctx more than 7 times", 3, 9)
    assert len(result.logs) == 7


async def test_waiting_for_a_model_costs_no_computing_time(sandbox: Sandbox, notebook: Notebook) -> None:
    limits = ScriptLimits(cpu_seconds=0.1, timeout_ms=30_000)
    script = "ctx.set_output('x', ctx.generate('a'))"
    running = asyncio.ensure_future(sandbox.run(script, notebook, limits, may_use_ai=True))
    await asyncio.wait_for(notebook.asked.wait(), 5)
    asked = time.monotonic()
    await eventually(lambda: time.monotonic() > asked + 0.3)
    notebook.answers.put_nowait("late")
    assert (await running).outputs == {"x": "late"}


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ScriptFault("at most 10 calls"), "RuntimeError: at most 10 calls"),
        (ScriptFault("bad role", "ValueError"), "ValueError: bad role"),
        (ProviderUnreachable(), "RuntimeError: The model server cannot be reached."),
        (ScriptFault("\0\ud800" + "x" * 9_999), "RuntimeError: \N{REPLACEMENT CHARACTER}" + "x" * 1_998),
    ],
)
async def test_a_failure_of_the_host_can_be_caught_and_read(
    sandbox: Sandbox, notebook: Notebook, failure: Exception, told: str
) -> None:
    notebook.answers.put_nowait(failure)
    script = """
try:
    ctx.generate("x")
except Exception as error:
    ctx.set_output("told", f"{type(error).__name__}: {error}")
"""
    assert (await sandbox.run(script, notebook, may_use_ai=True)).outputs == {"told": told}


async def test_a_fault_of_ours_is_raised_here_and_not_shown_to_the_script(sandbox: Sandbox, notebook: Notebook) -> None:
    for failure in (ZeroDivisionError("secret"), TimeoutError("secret")):
        notebook.answers.put_nowait(failure)
        with pytest.raises(type(failure), match="secret"):
            await sandbox.run("try:\n    ctx.generate('x')\nexcept BaseException: pass", notebook, may_use_ai=True)


async def test_scripts_share_nothing(sandbox: Sandbox, notebook: Notebook) -> None:
    for _ in range(5):
        result = await sandbox.run(
            "try:\n    seen\nexcept NameError:\n    ctx.set_output('fresh', True)\n"
            "import json\nseen = 1\njson.seen = 1\nctx.seen = 1\nlen = None",
            notebook,
            may_use_ai=False,
        )
        assert result.outputs == {"fresh": True}


async def test_what_a_script_leaves_can_be_stored(sandbox: Sandbox, notebook: Notebook) -> None:
    result = await sandbox.run(
        'ctx.set_output("a", ["x\\0y", "\\ud800", (1, 2)])\nctx.log("l\\0")\nprint("p\\0")', notebook, may_use_ai=False
    )
    assert result.outputs == {"a": ["xy", "\N{REPLACEMENT CHARACTER}", [1, 2]]}
    assert (result.logs, result.printed) == (("l",), "p\n")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("float('nan')", "nan is not a number in JSON"),
        ("[float('inf')]", "inf is not a number in JSON"),
        ("(lambda l: l.append(l) or l)([])", "holds itself"),
        ("{'a': 1} | {'b': {1, 2}}", "set cannot be written as JSON"),
        ("b'x'", "bytes cannot be written as JSON"),
        ("2**64", "more than 63 bits"),
        ("{1: 2}", "keys must be text"),
        ("ctx", "an object cannot be written as JSON"),
        ("len", "an object cannot be written as JSON"),
        ("[0] * 6000", "more than 5,000 parts"),
    ],
)
async def test_outputs_that_are_not_json_are_refused_with_the_reason(
    sandbox: Sandbox, notebook: Notebook, value: str, reason: str
) -> None:
    result = await sandbox.run(f"ctx.set_output('x', {value})", notebook, may_use_ai=False)
    assert result.outputs == {}
    assert result.error
    assert (result.error.type, result.error.line) == ("ValueError", 1)
    assert reason in result.error.message


SPIN = "ctx.set_variable('begun', True)\nwhile True: pass"


@on_linux
async def test_a_cancelled_script_is_gone_at_once_even_while_it_computes(notebook: Notebook) -> None:
    async with Sandbox(count_tokens=four_characters_each, max_workers=1) as sandbox:
        others = workers()
        running = asyncio.ensure_future(sandbox.run(SPIN, notebook, PATIENT, may_use_ai=False))
        await eventually(lambda: notebook.variables)
        spinning = workers() - others
        assert len(spinning) == 1
        begun = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert time.monotonic() - begun < 1
        await eventually(lambda: not spinning & workers(), 1)
        assert (await sandbox.run("ctx.log('fine')", notebook, may_use_ai=False)).logs == ("fine",)


WAIT = "ctx.generate('x')"
WAIT_STUBBORNLY = "while True:\n    try:\n        ctx.generate('x')\n    except BaseException:\n        pass"


@pytest.mark.parametrize("script", [WAIT, WAIT_STUBBORNLY])
async def test_a_script_that_waits_for_a_model_is_cancelled_at_once(
    sandbox: Sandbox, notebook: Notebook, script: str
) -> None:
    running = asyncio.ensure_future(sandbox.run(script, notebook, PATIENT, may_use_ai=True))
    await asyncio.wait_for(notebook.asked.wait(), 5)
    begun = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - begun < 1


@on_linux
async def test_scripts_cancelled_at_any_moment_leave_a_pool_that_works(notebook: Notebook) -> None:
    async with Sandbox(count_tokens=four_characters_each, max_workers=4) as sandbox:
        others = workers()
        # From before the first process is up to the middle of the computing.
        for turns in [*range(12), *range(20, 200, 20)]:
            runs = [asyncio.ensure_future(sandbox.run(SPIN, notebook, PATIENT, may_use_ai=False)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for run in runs:
                run.cancel()
            await asyncio.wait(runs, timeout=5)
            assert all(run.cancelled() for run in runs)
        assert (await sandbox.run("ctx.log('fine')", notebook, may_use_ai=False)).logs == ("fine",)
        assert len(workers() - others) <= 4


async def test_a_script_that_computes_past_its_time_in_all_is_stopped(sandbox: Sandbox, notebook: Notebook) -> None:
    limits = ScriptLimits(cpu_seconds=20, timeout_ms=100)
    begun = time.monotonic()
    result = await sandbox.run("while True: pass", notebook, limits, may_use_ai=False)
    assert result.error == ScriptError("TimeoutError", "took longer than 0.1 s")
    assert time.monotonic() - begun < 1.1


@on_linux
@pytest.mark.parametrize("script", [SPIN, WAIT])
async def test_a_killed_process_costs_its_script_one_clear_error(notebook: Notebook, script: str) -> None:
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        others = workers()
        await sandbox.start()
        running = asyncio.ensure_future(sandbox.run(script, notebook, PATIENT, may_use_ai=True))
        await eventually(lambda: notebook.calls)
        for process in workers() - others:
            os.kill(process, signal.SIGKILL)
        notebook.answers.put_nowait("too late")
        error = (await running).error
        assert error == ScriptError("WorkerLost", "the process that ran the script ended unexpectedly; run it again")
        after = await sandbox.run("ctx.log('fine')", notebook, may_use_ai=False)
        assert (after.error, after.logs) == (None, ("fine",))


@on_linux
async def test_a_process_that_died_while_idle_costs_no_script_anything(notebook: Notebook) -> None:
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        others = workers()
        await sandbox.start()
        for _ in range(5):
            idle = workers() - others
            assert idle
            for process in idle:
                os.kill(process, signal.SIGKILL)
            await eventually(lambda idle=idle: not idle & workers())
            result = await sandbox.run("ctx.log('fine')", notebook, may_use_ai=False)
            assert (result.logs, result.error) == (("fine",), None)


@on_linux
async def test_a_script_whose_process_dies_before_it_did_anything_is_run_again_once(notebook: Notebook) -> None:
    async with Sandbox(count_tokens=four_characters_each, max_workers=1) as sandbox:
        others = workers()
        await sandbox.start()
        running = asyncio.ensure_future(sandbox.run("while True: pass", notebook, PATIENT, may_use_ai=False))
        killed: set[int] = set()
        for _ in range(2):
            await eventually(lambda: computing(os.getpid()) - others - killed, 20)
            for process in computing(os.getpid()) - others - killed:
                os.kill(process, signal.SIGKILL)
                killed.add(process)
        error = (await asyncio.wait_for(running, 20)).error
        assert error
        assert error.type == "WorkerLost"


@on_linux
@pytest.mark.parametrize("swept", ["worker", "*"])
async def test_whoever_sweeps_temporary_files_away_does_not_stop_scripts(
    swept: str, notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        level = await sandbox.start()
        for path in tmp_path.glob(f"*/{swept}"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        others = workers()
        runs = [sandbox.run("ctx.log('fine')", notebook, may_use_ai=False) for _ in range(5)]
        assert [(result.logs, result.error) for result in await asyncio.gather(*runs)] == [(("fine",), None)] * 5
        assert sandbox.hardening_level is level
        assert workers() - others or level is Hardening.NONE
    assert list(tmp_path.iterdir()) == []


@on_linux
async def test_leaving_the_sandbox_ends_its_processes(notebook: Notebook) -> None:
    others = workers()
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        await sandbox.run("", notebook, may_use_ai=False)
        assert workers() - others
    await eventually(lambda: workers() <= others)


@on_linux
async def test_a_sandbox_that_is_never_used_starts_no_process() -> None:
    others = workers()
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        assert sandbox.hardening_level is None
        assert workers() == others


@on_linux
async def test_finding_out_about_hardening_keeps_no_process() -> None:
    others = workers()
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        level = await sandbox.harden()
        assert level is sandbox.hardening_level
        assert workers() == others
        assert await sandbox.start() is level


@on_linux
@pytest.mark.parametrize("steps", [0, 1, 2, 5, 10, 20, 50, 100, 200, 400])
async def test_a_sandbox_may_be_left_at_any_step_of_its_start(steps: int) -> None:
    others = workers()
    async with asyncio.timeout(10):
        async with Sandbox(count_tokens=four_characters_each) as sandbox:
            starting = asyncio.ensure_future(sandbox.start())
            for _ in range(steps):
                await asyncio.sleep(0)
        await asyncio.gather(starting, return_exceptions=True)
    await eventually(lambda: workers() <= others)


MUTE = "#!/bin/sh\n[ $1 = --version ] && echo monty && exit\nexec sleep 60\n"


@on_linux
async def test_a_sandbox_whose_processes_never_come_up_may_be_left(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "monty").write_text(MUTE)
    (tmp_path / "monty").chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))  # pyright: ignore[reportUnknownLambdaType]
    async with asyncio.timeout(30):
        async with Sandbox(count_tokens=four_characters_each) as sandbox:
            await sandbox.harden()
            running = asyncio.ensure_future(sandbox.run("", notebook, PATIENT, may_use_ai=False))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not running.done()
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_without_room_for_temporary_files_scripts_fail_until_there_is_some(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        error = (await sandbox.run("ctx.log('x')", notebook, may_use_ai=False)).error
        assert error
        assert error.type == "WorkerLost"
        monkeypatch.undo()
        assert (await sandbox.run("ctx.log('x')", notebook, may_use_ai=False)).logs == ("x",)


async def test_after_its_end_a_sandbox_runs_nothing(notebook: Notebook) -> None:
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        await sandbox.start()
    with pytest.raises(ShuttingDown):
        await sandbox.run("", notebook, may_use_ai=False)


async def test_fifty_scripts_at_once_each_get_their_own_result(sandbox: Sandbox) -> None:
    notebooks = [Notebook() for _ in range(50)]
    runs = [
        asyncio.ensure_future(
            sandbox.run(
                f"ctx.set_variable('n', {number})\nanswer = ctx.generate('x')\n"
                f"ctx.set_output('n', [ctx.get_variable('n'), answer])",
                notebook,
                PATIENT,
                may_use_ai=True,
            )
        )
        for number, notebook in enumerate(notebooks)
    ]
    for notebook in notebooks:
        await asyncio.wait_for(notebook.asked.wait(), 20)
    for number, notebook in enumerate(notebooks):
        notebook.answers.put_nowait(f"answer {number}")
    results = await asyncio.gather(*runs)
    assert [result.outputs for result in results] == [{"n": [n, f"answer {n}"]} for n in range(50)]


async def test_the_loop_goes_on_while_scripts_compute(sandbox: Sandbox, notebook: Notebook) -> None:
    runs = [asyncio.ensure_future(sandbox.run("while True: pass", notebook, QUICK, may_use_ai=False)) for _ in range(4)]
    longest = 0.0
    while not all(run.done() for run in runs):
        begun = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - begun)
    assert longest < 0.25
    assert all(run.result().error for run in runs)
