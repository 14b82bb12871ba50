"""What scripts may call at all, and what a module keeps and learns of others."""

import inspect
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest

from services.scripts.functions import PureFunctions
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptFault, ScriptLimits
from tests.integration.prompt.host.scene import DECLARED, Scene, call


async def no_tokens(_text: str) -> int:
    return 0


async def test_every_function_is_performed_by_the_host_or_needs_none(scene: Scene):
    own = PureFunctions(ScriptLimits(), lambda: datetime.now(UTC), "UTC", no_tokens)
    performed = scene.host().functions

    assert set(performed) == {name for name in DECLARED if name not in own}
    for name, function in performed.items():
        assert list(inspect.signature(function).parameters) == list(DECLARED[name].signature.parameters), name


async def test_a_script_sees_its_session_through_the_sandbox(scene: Scene):
    await scene.say("Hello", "Hi", "And now?")
    script = """
seen = ctx.get_variable("seen", 0)
ctx.set_variable("seen", seen + ctx.get_message_count())
ctx.set_output("last", ctx.get_recent_messages(2))
try:
    ctx.get_message_count("nobody's")
except ValueError as error:
    ctx.set_output("error", str(error))
"""
    view = scene.sight(variables={"seen": 4})

    async with Sandbox(count_tokens=no_tokens, max_workers=1) as sandbox:
        result = await sandbox.run(script, scene.host(view), may_use_ai=False)

    assert result.error is None
    assert result.outputs == {
        "last": "[12:01] Assistant: Hi\n[12:02] User: And now?",
        "error": "There is no session with that id.",
    }
    assert view.variables == {"seen": 7}


async def test_variables_are_the_modules_own(scene: Scene):
    view = scene.sight(variables={"kept": [1]})
    host = scene.host(view)

    await call(host, "set_variable", "new", {"a": None})

    assert await call(host, "get_variable", "kept") == [1]
    assert await call(host, "get_variable", "absent", "default") == "default"
    assert await call(host, "get_all_variables") == {"kept": [1], "new": {"a": None}} == view.variables


async def test_a_module_keeps_only_so_many_variables(scene: Scene):
    view = scene.sight(variables={f"v{number}": number for number in range(100)})
    host = scene.host(view)
    await call(host, "set_variable", "v0", "changed")

    await refused(call(host, "set_variable", "one_more", 1), "at most 100 variables")

    assert len(view.variables) == 100
    assert view.variables["v0"] == "changed"


@pytest.mark.parametrize(
    ("name", "value", "why"), [("big", "x" * 65_536, "larger"), ("", 1, "name"), ("n" * 101, 1, "name")]
)
async def test_a_variable_that_is_too_large_is_not_kept(scene: Scene, name: str, value: str | int, why: str):
    view = scene.sight(variables={"kept": 1})

    await refused(call(scene.host(view), "set_variable", name, value), why)

    assert view.variables == {"kept": 1}


async def test_other_modules_are_asked_through_the_turn(scene: Scene):
    host = scene.host(scene.sight(outputs={("mood", "word"): "calm"}))

    assert await call(host, "get_module_output", "mood", "word") == "calm"
    assert await call(host, "get_module_output", "mood", "absent") is None
    assert await call(host, "run_module", "weather") == "text of weather"


async def refused(called: Awaitable[object], why: str) -> None:
    with pytest.raises(ScriptFault, match=why) as refusal:
        await called
    assert refusal.value.kind == "ValueError"
