"""A script is checked before it is saved: against the interpreter's Python, and against the declaration of ctx."""

import asyncio
import time

import pytest

from services.scripts.analysis import Problem
from services.scripts.api import plugin_functions
from services.scripts.checker import ScriptChecker
from tests.integration.scripts.processes import workers

EVERY_FUNCTION = "\n".join(
    [
        'ctx.set_output("x", [ctx.get_output("y"), ctx.get_variable("n", 0) + 1])',
        'ctx.set_variable("n", {"a": None})',
        "for name in ctx.get_all_variables(): ctx.log(name)",
        'ctx.log(ctx.get_module_output("m", "x"))',
        'ctx.log(ctx.run_module("m").upper() + ctx.get_current_time("%H", timezone="Europe/Vienna"))',
        "ctx.log(ctx.get_relative_time(-1.5) + ctx.format_timestamp(0) + ctx.format_timestamp('2026-01-01'))",
        "if ctx.is_business_hours(8, 18): ctx.log(ctx.get_day_of_week(False))",
        "total = ctx.get_message_count() + 1",
        "text = ctx.get_recent_messages(5) + ctx.get_conversation_summary() + ctx.get_user_message()",
        "found = ctx.search_messages('x', limit=2)",
        "for message in ctx.get_raw_recent_messages() + ctx.get_message_range(0, 5) + found:",
        "    ctx.log(message['content'].strip() + ctx.get_ai_response())",
        "history = ctx.get_conversation_history(10, offset=5)",
        "ctx.log(ctx.get_persona_info()['name'])",
        "if ctx.should_compress_buffer(10) or ctx.should_compress_buffer_by_ids([m['id'] for m in history]):",
        "    ctx.log(ctx.store_memory(text, [0, len(ctx.get_buffer_messages())], {'kind': 'digest'}))",
        "memories = ctx.get_recent_memories(3) + ctx.search_memories('x')",
        "ctx.log([ctx.get_memory_status(), ctx.clear_memories() > 0])",
        "answer = ctx.generate('Say hi', text, temperature=0.3) + ctx.reflect('Why?', role='user', max_tokens=50)",
        "ctx.log(ctx.to_json(ctx.from_json('[1]'), indent=2) + ctx.join_strings(ctx.split_string(answer)))",
        "ctx.log(ctx.count_words(answer) + ctx.count_tokens(answer))",
    ]
)


def test_the_sample_names_every_function() -> None:
    assert [function.name for function in plugin_functions() if f"ctx.{function.name}(" not in EVERY_FUNCTION] == []


@pytest.mark.parametrize(
    "script",
    [
        "",
        EVERY_FUNCTION,
        "from __future__ import annotations\nimport re, json, math, datetime, random, collections",
        "import itertools, functools, decimal, hashlib, base64, csv, bisect, unicodedata, tomllib, asyncio, time, copy",
        "raise SystemExit",
        "while True: pass",
        "def fib(n: int) -> int:\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nctx.log(fib(5))",
        "def f(x):\n    return [x, ctx.get_variable('a')]\n" * 1_000,
    ],
)
async def test_a_good_script_has_no_problems(checker: ScriptChecker, script: str) -> None:
    assert await checker.check(script) == []


@pytest.mark.parametrize(
    ("script", "line", "column", "message"),
    [
        ("x = (", 1, 6, "unexpected EOF while parsing"),
        ("x = 1\n\n  y = 2", 3, 1, "indentation"),
        ("x = 1\nclass A(B): pass", 2, 1, "scripts cannot use class inheritance"),
        ("def f():\n    yield 1", 2, 5, "scripts cannot use yield expressions"),
        ("x = {}\ndel x['a']", 2, 1, "scripts cannot use the 'del' statement"),
        ("é = 'ü'; ctx.generat('é')", 1, 10, "has no attribute `generat`"),
        ("\nctx.set_output('x')", 2, 1, "required parameter `value`"),
        ("ctx.get_recent_messages('all')", 1, 25, "Expected `int`"),
        ("ctx.log('x', level=1)", 1, 14, "`level`"),
        ("ctx.count_words('x').upper()", 1, 1, "has no attribute `upper`"),
        ("await ctx.generate('x')", 1, 7, "not awaitable"),
        ("print(nope)", 1, 7, "`nope`"),
        ("import os, string", 1, 12, "`string`"),
        ("import evil.module", 1, 8, "`evil.module`"),
        ("x: int = 'a'", 1, 10, "not assignable"),
        ("from __future__ import annotations\nctx.nope()", 2, 1, "`nope`"),
        ("(" * 20_000, 1, 201, "too deeply nested"),
        ("x" * 70_000, 1, 1, "larger than 65,536 bytes"),
    ],
)
async def test_a_problem_is_told_with_its_place(
    checker: ScriptChecker, script: str, line: int, column: int, message: str
) -> None:
    problems = await checker.check(script)
    assert (problems[0].line, problems[0].column) == (line, column)
    assert message in problems[0].message


async def test_all_problems_are_told_in_the_order_of_the_text(checker: ScriptChecker) -> None:
    problems = await checker.check("ctx.one()\nx = 1\nctx.two()\nctx.three()")
    assert [problem.line for problem in problems] == [1, 3, 4]


async def test_a_check_runs_nothing_of_the_script(checker: ScriptChecker) -> None:
    begun = time.monotonic()
    for script in ("while True: pass", "import time\nwhile True: time.sleep(1)", "x = [0] * 10**12", "1 / 0"):
        assert await checker.check(script) == []
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "script",
    [
        "x=[]\n" + "x=[x,x]\n" * 5_000,
        "x='a'\n" + "x=x if ctx.log(1) else {1:x}\n" * 1_500,
        "x=1\n" * 16_000,
        "x = " + "f'{" * 100 + "1" + "}'" * 100,
        "import " + ",".join(f"m{number}" for number in range(5_000)),
        "x: " + "list[" * 150 + "int" + "]" * 150 + " = 1",
        "\ud800",
    ],
)
async def test_a_script_made_to_be_slow_is_given_up_in_time(checker: ScriptChecker, script: str) -> None:
    begun = time.monotonic()
    assert isinstance(await checker.check(script), list)
    assert time.monotonic() - begun < 6
    assert await checker.check("ctx.nope()") == [
        Problem(1, 1, "Object of type `Context` has no attribute `nope`"),
    ]


async def test_the_checker_s_processes_end_with_it() -> None:
    others = workers()
    async with ScriptChecker() as checker:
        await checker.check("x = 1")
    assert workers() <= others


async def test_many_scripts_at_once_wait_for_each_other_and_none_is_called_too_complicated(
    checker: ScriptChecker,
) -> None:
    found = await asyncio.gather(*(checker.check(f"ctx.log({number})\nx: int = 'no'") for number in range(40)))
    assert [[(problem.line, problem.column) for problem in problems] for problems in found] == [[(2, 10)]] * 40
