"""The stages: who speaks in which, side by side, once, and what is told of it."""

import asyncio
from typing import Any

import orjson
import pytest

from db.ids import LOCAL_OWNER
from services.errors import NotFound
from services.inbox import Send
from services.prompt.archive import Rendering
from tests.fakes.script import Text, Wait
from tests.integration.prompt.conftest import Studio, events
from tests.integration.runs.conftest import read_until

ASK = 'ctx.set_output("t", ctx.generate("One word:"))'


async def whole(studio: Studio, session_id: Any, words: str):
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session_id) as attachment:
        await chat.send(LOCAL_OWNER, session_id, Send([words], when_busy="queue"))
        return await read_until(attachment, "post_response_complete")


def told(frames: Any) -> dict[int, dict[str, str]]:
    """What each finished stage tells of its modules."""
    ended = [event for event in events(frames, "stage_update") if event["status"] == "finished"]
    return {event["stage"]: {module["name"]: module["status"] for module in event["modules"]} for event in ended}


async def test_each_stage_tells_what_became_of_its_modules(studio: Studio):
    fragile = 'if ctx.get_message_count() > 1:\n    1 / 0\nctx.set_output("t", "good")'
    later: dict[str, Any] = {"execution_context": "POST_RESPONSE"}
    await studio.module("plain", content="Plain.")
    await studio.module("quiet", content="Quiet.", trigger_pattern="never")
    await studio.module("off", content="Off.", is_active=False)
    await studio.module("broken", script="1 / 0")
    await studio.module("fragile", script=fragile)
    await studio.module("asks", script=ASK)
    await studio.module("after", script='ctx.set_output("t", "after")', **later)
    await studio.module("breaks_after", script="1 / 0", **later)
    await studio.module("never_after", script="1", trigger_pattern="never", **later)
    await studio.module("asks_after", script=ASK, **later)
    names = ["plain", "quiet", "off", "broken", "fragile", "asks", "after", "breaks_after", "never_after", "asks_after"]
    session = await studio.session(" ".join(f"@{name}" for name in names))
    for reply in ("calm", "Hello.", "well") * 2:
        studio.model.reply(reply)

    await whole(studio, session, "Hi")
    frames = await whole(studio, session, "Hi")

    assert told(frames) == {
        1: {
            "plain": "spoke",
            "quiet": "silent",
            "off": "silent",
            "broken": "stale",  # it has failed before, and has nothing that it could say again
            "fragile": "stale",
            "after": "spoke",
            "breaks_after": "failed",
            "never_after": "silent",
            "asks_after": "spoke",
        },
        2: {"asks": "spoke"},
        4: {"after": "spoke", "breaks_after": "stale", "never_after": "silent"},
        5: {"asks_after": "spoke"},
    }
    done = orjson.loads(frames[-1].text)["modules"]
    assert {module["name"]: module["status"] for module in done} == told(frames)[4] | told(frames)[5]
    assert all(isinstance(module["ms"], int) for module in done)
    assert studio.system_prompt(-2) == "Plain.    good calm after   well"


async def test_modules_of_a_stage_wait_for_their_models_side_by_side(studio: Studio):
    for name in ("one", "two", "three"):
        await studio.module(name, script=ASK)
    session = await studio.session("@one @two @three")
    gate = asyncio.Event()
    for _ in range(3):
        studio.model.script(Wait(gate), Text("word"))
    speaking = asyncio.create_task(studio.say(session, "Hi"))
    async with asyncio.timeout(20):
        await studio.model.request(2)  # all three are asked though none has answered
    gate.set()
    await speaking
    assert studio.system_prompt() == "word word word"


async def test_a_module_waits_for_those_that_it_refers_to(studio: Studio):
    await studio.module("base", script='ctx.set_output("t", "base")')
    await studio.module(
        "top", script='ctx.set_output("t", ctx.get_module_output("base", "t"))', content="${t} of @base"
    )
    await studio.say(await studio.session("@top"), "Hi")
    assert studio.system_prompt() == "base of base"


async def test_a_module_runs_once_in_a_turn_however_often_it_is_asked_for(studio: Studio):
    once = 'n = ctx.get_variable("n", 0) + 1\nctx.set_variable("n", n)\nctx.set_output("n", n)'
    runs = 'ctx.set_output("t", ctx.run_module("once"))'
    await studio.module("once", script=once)
    await studio.module("a", script=runs, content="@once ${t}")
    await studio.module("b", script=runs)
    await studio.module("late", script=runs, execution_context="POST_RESPONSE")
    session = await studio.session("@once ${once.n} @a @b @{once} @late")
    for _ in range(2):
        await whole(studio, session, "Hi @once")
    assert studio.system_prompt() == "2 2 2 2 2 2 1"


async def test_an_attached_module_on_demand_waits_to_be_named(studio: Studio):
    waiting = await studio.module("recipe", content="Cook well.", execution_context="ON_DEMAND")
    always = await studio.module("style", content="Be brief.")
    session = await studio.session("Base.", module_ids=[waiting.id, always.id])
    await studio.say(session, "Hello")
    assert studio.system_prompt() == "Base.\n\nBe brief."
    await studio.say(session, "@recipe")
    assert studio.system_prompt() == "Base.\n\nBe brief.\n\nCook well."


async def test_what_a_user_names_without_a_persona_is_told_and_traced_like_any_prompt(studio: Studio):
    await studio.module("recipe", content="Cook well.", execution_context="ON_DEMAND")
    session = (await studio.services.sessions.create(LOCAL_OWNER)).id
    frames = await studio.say(session, "@recipe, @nobody")
    assert studio.system_prompt() == (await studio.trace(frames)).prompt == "Cook well."
    run_id = frames[0].run_id
    assert run_id
    rendering = await studio.services.archive.render(LOCAL_OWNER, session, run_id)
    assert rendering == Rendering("Cook well.", is_same=True, changed=())
    run_id = (await studio.say(session, "nothing"))[0].run_id
    assert run_id
    with pytest.raises(NotFound):
        await studio.services.archive.render(LOCAL_OWNER, session, run_id)


async def test_a_module_that_was_changed_speaks_anew_in_the_next_turn(studio: Studio):
    modules = studio.services.modules
    style = await studio.module("style", content="Be brief.")
    rain = await studio.module("rain", content="It rains.", trigger_pattern="rain")
    session = await studio.session("@style @rain")
    await studio.say(session, "Hi")
    assert studio.system_prompt() == "Be brief. "
    await modules.update(LOCAL_OWNER, style.id, {"content": "Be long. @rain"}, version=None)
    await modules.update(LOCAL_OWNER, rain.id, {"trigger_pattern": "snow", "content": "It snows."}, version=None)
    await studio.say(session, "Snow")
    assert studio.system_prompt() == "Be long. It snows. It snows."
    await modules.delete(LOCAL_OWNER, rain.id, version=None, force=True)
    await studio.say(session, "Snow")
    assert studio.system_prompt() == "Be long. @rain @rain"


async def test_the_trace_tells_tokens_time_and_what_became_of_modules_after_the_reply(studio: Studio):
    await studio.module("words", script='ctx.set_output("t", "one two three")')
    await studio.module("after", script='ctx.set_output("t", "four five")', execution_context="POST_RESPONSE")
    await studio.module("broken", script='raise ValueError("boom")', execution_context="POST_RESPONSE")
    session = await studio.session("@words @after @broken")
    trace = (await studio.trace(await whole(studio, session, "Hi"))).trace

    words = trace["modules"][0]
    assert (words["characters"], words["tokens"]) == (13, 3)
    assert 0 <= words["ms"] < 30_000
    assert [(e["module"], e["state"], e["tokens"]) for e in trace["after"].values()] == [
        ("after", "spoke", 2),
        ("broken", "failed", 0),
    ]
    error = trace["after"]["broken"]["error"]
    assert (error["type"], error["message"], error["line"]) == ("ValueError", "boom", 1)


async def test_what_a_module_asks_after_the_reply_is_counted_with_that_work(studio: Studio):
    await studio.module("thought", script=ASK, execution_context="POST_RESPONSE")
    session = await studio.session("@thought")
    for reply in ("Hello.", "well"):
        studio.model.reply(reply)
    await whole(studio, session, "Hi")
    [usage] = await studio.look("select usage from post_responses")
    assert usage["stage 5"]["output_tokens"] == 1
    assert "stage 4" not in usage


async def test_a_text_too_large_after_the_reply_costs_that_module_alone(studio: Studio):
    large = 'ctx.set_output("t", "x" * 30_000)'
    await studio.module("large", script=large, content="${t}${t}${t}", execution_context="POST_RESPONSE")
    await studio.module("small", script='ctx.set_output("t", "small")', execution_context="POST_RESPONSE")
    session = await studio.session("<@large @small>")
    await whole(studio, session, "Hi")
    frames = await studio.say(session, "Hi")
    assert studio.system_prompt() == "< small>"
    assert told(frames)[1] == {"large": "failed", "small": "spoke"}
