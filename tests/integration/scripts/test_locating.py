"""A script that is tried out and computes too long is run once more, to tell in which statement it does."""

import pytest

from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptError, ScriptLimits
from tests.integration.scripts.notebook import Notebook

QUICK = ScriptLimits(cpu_seconds=0.2)


async def tried(sandbox: Sandbox, script: str, notebook: Notebook) -> ScriptError:
    result = await sandbox.thorough().run(script, notebook, QUICK, may_use_ai=True)
    assert result.error
    return result.error


@pytest.mark.parametrize(
    ("script", "line", "column"),
    [
        ("while True: pass", 1, 13),
        ("ctx.log(1)\nwhile True:\n    # over and over\n    pass", 4, 5),
        ("def f(n):\n    while True:\n        n += 1\n\nf(1)", 3, 9),
        ("class A:\n    def go(self):\n        while True:\n            pass\n\nA().go()", 4, 13),
        ("é = 'ü'; sum(range(10**12))", 1, 10),
        ("while True:\n    try:\n        x = 1 / 0\n    except ZeroDivisionError:\n        sum(range(10**12))", 5, 9),
    ],
)
async def test_the_statement_is_found(
    sandbox: Sandbox, notebook: Notebook, script: str, line: int, column: int
) -> None:
    message = "computed for more than 0.2 s; run once more, it did so in this line"
    assert await tried(sandbox, script, notebook) == ScriptError("TimeoutError", message, line, column)


async def test_the_second_run_gets_the_answers_of_the_first_and_asks_nobody(
    sandbox: Sandbox, notebook: Notebook
) -> None:
    notebook.answers.put_nowait("go")
    script = "n = ctx.generate('x')\nctx.set_variable('n', n)\nctx.set_output('n', n)\nwhile n == 'go':\n    pass"
    result = await sandbox.thorough().run(script, notebook, QUICK, may_use_ai=True)
    assert result.error
    assert result.error.line == 5
    assert [name for name, _ in notebook.calls] == ["generate", "set_variable"]
    assert (result.outputs, result.calls) == ({"n": "go"}, 3)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("x = 3\nctx.log(1)\nwhile True:\n    x = x * x", 2),
        ("for i in range(101):\n    ctx.get_variable('x')\nwhile True:\n    pass", 2),
    ],
    ids=["killed in one long operation", "more calls than are kept"],
)
async def test_where_it_cannot_be_found_the_newest_call_is_told(
    sandbox: Sandbox, notebook: Notebook, script: str, line: int
) -> None:
    error = await tried(sandbox, script, notebook)
    assert (error.type, error.line) == ("TimeoutError", line)
    assert ", after ctx." in error.message


async def test_a_second_run_that_goes_another_way_tells_no_place(sandbox: Sandbox, notebook: Notebook) -> None:
    script = """
import random
calls = [lambda: ctx.log("a"), lambda: ctx.get_variable("b"), lambda: ctx.get_output("c")]
for _ in range(30):
    random.choice(calls)()
while True:
    pass
"""
    error = await tried(sandbox, script, notebook)
    assert ", after ctx." in error.message
    assert error.line == 3


@pytest.mark.parametrize("trick", ["__at__ = 10**9", "__at__ = 'x'", "globals = 1", "def int(x): return 0"])
async def test_a_script_cannot_confuse_the_search(sandbox: Sandbox, notebook: Notebook, trick: str) -> None:
    error = await tried(sandbox, f"{trick}\nwhile True:\n    {trick.replace('def int(x): return 0', 'pass')}", notebook)
    assert error.line == 3
