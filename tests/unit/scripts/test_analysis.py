"""What can be read from a script's text; in doubt, that it asks a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scripts.analysis import Analysis, Problem, analyse


@pytest.mark.parametrize(
    "script",
    [
        'ctx.generate("hi")',
        'ctx.reflect("hi")',
        "ask = ctx.generate",
        'c = ctx\nc.generate("hi")',
        'text = f"{ctx.generate(1)}"',
        "def f(x):\n    return [y.reflect('a') for y in x]",
        'getattr(ctx, "generate")("hi")',
        'getattr(ctx, "gen" + "erate")("hi")',
        "name = input\ngetattr(ctx, name)",
        'get = getattr\nget(ctx, "gener" + "ate")',
        'list(map(getattr, [ctx], ["generate"]))',
        'getattr(*[ctx, "generate"])',
        "eval('ctx.gen' + 'erate(1)')",
        "exec('x')",
        "run = exec",
        'ctx.__getattribute__("generate")',
        "match ctx:\n    case object(generate=ask):\n        pass",
        "generate = 1",
        "from tools import generate",
        "from tools import generate as g",
        "from tools import *",
        "lambda: ctx.reflect",
        "(c := ctx).reflect('x')",
    ],
)
def test_a_script_that_may_ask_a_model_requires_ai(script: str) -> None:
    assert analyse(script).requires_ai


@pytest.mark.parametrize(
    "script",
    [
        "",
        "# ctx.generate(1)",
        '"""ctx.generate(1)"""',
        'ctx.set_output("a", "generate reflect getattr(ctx)")',
        'ctx.get_variable("generate")',
        'getattr(message, "role")',
        "ctx.log(generated)",
        "regenerate()",
        "f(generate=1)",
    ],
)
def test_strings_comments_and_other_names_do_not_count(script: str) -> None:
    assert not analyse(script).requires_ai


def test_functions_outputs_and_modules_are_read_where_they_are_written_out() -> None:
    script = """
c = ctx
c.set_output("mood", ctx.run_module("weather"))
ctx.set_output(name="tone", value=1)
ctx.set_output(computed, 1)
ctx.set_output(f"x{1}", 1)
ctx.get_module_output("history", "digest")
ctx.run_module("weather")
other.set_output("not_ours", 1)
ctx.unknown("x")
"""
    assert analyse(script) == Analysis(
        requires_ai=False,
        functions=("get_module_output", "run_module", "set_output"),
        outputs=("mood", "tone"),
        references=("weather", "history"),
    )


def test_a_script_that_cannot_be_read_is_told_with_its_place() -> None:
    found = analyse("x = 1\ny = = 2")
    assert found.requires_ai
    assert found.syntax_errors == (Problem(2, 5, "invalid syntax"),)


@pytest.mark.parametrize(
    "script",
    ["(" * 60_000, "x" + ".a" * 30_000, "-" * 60_000 + "1", "x=" + "[" * 30_000, "a\0b", "\ud800", "x" * 70_000]
    + ["if 1:\n" + " " * n for n in (0, 200)]
    + ["lambda: " * 8_000 + "1", "not " * 16_000 + "x", "'\\d'", '"" ""' * 9_000],
)
def test_hostile_text_is_read_or_refused_but_never_raises(script: str) -> None:
    assert isinstance(analyse(script), Analysis)


@given(st.text(alphabet="ctx.generat()[]{}'\"\\\n\t :=0abf#@*,"))
def test_any_text_is_read_or_refused(script: str) -> None:
    assert isinstance(analyse(script), Analysis)
