"""What the model is told comes out of modules that speak, are silent or fail, and the trace says why."""

import asyncio
import time

import orjson

from db.ids import LOCAL_OWNER
from services.inbox import Send
from tests.fakes.openai_server import OpenAIFake
from tests.integration.prompt.conftest import Studio, events, studio_with
from tests.integration.runs.conftest import read_until


def states(trace) -> dict[str, str]:
    return {entry["module"]: entry["state"] for entry in trace.trace["modules"]}


async def test_the_model_is_told_what_the_trace_says_byte_for_byte(studio: Studio):
    await studio.module("style", content="Be brief, é@user stays. \\@style too.")
    await studio.module("mood", script='ctx.set_output("mood", "calm & 🙂")', content="You are ${mood}.")
    session = await studio.session("Hello @style\n@mood\n${persona.name} @nobody")
    frames = await studio.say(session, "Hi")
    trace = await studio.trace(frames)
    prompt = trace.prompt
    assert prompt == studio.system_prompt()
    assert prompt.startswith("Hello Be brief, é@user stays. @style too.\nYou are calm & 🙂.\nPersona ")
    assert prompt.endswith(" @nobody")
    assert states(trace) == {"style": "spoke", "mood": "spoke", "nobody": "unknown"}


async def test_a_module_is_silent_until_its_trigger_matches(studio: Studio):
    await studio.module("dragons", content="You know dragons.", trigger_pattern="dragon|wyrm")
    session = await studio.session("Base. @dragons")
    assert states(await studio.trace(await studio.say(session, "Hello"))) == {"dragons": "silent"}
    assert studio.system_prompt() == "Base. "
    assert states(await studio.trace(await studio.say(session, "A dragon!"))) == {"dragons": "spoke"}
    assert studio.system_prompt() == "Base. You know dragons."


async def test_what_a_script_produced_is_never_read_as_a_template(studio: Studio):
    await studio.module("secret", content="SECRET")
    await studio.module("echo", script='ctx.set_output("said", ctx.get_user_message())')
    session = await studio.session("[@echo]")
    await studio.say(session, "@secret ${now} \\@x")
    assert studio.system_prompt() == "[@secret ${now} \\@x]"


async def test_a_failing_script_says_what_it_said_last_and_never_its_error(studio: Studio):
    script = (
        'n = ctx.get_message_count()\nif n > 1:\n    raise ValueError("do not show this")\nctx.set_output("t", "good")'
    )
    await studio.module("fragile", script=script)
    session = await studio.session("<@fragile>")
    first = await studio.trace(await studio.say(session, "one"))
    second = await studio.trace(await studio.say(session, "two"))
    assert studio.system_prompt() == "<good>"
    assert (states(first), states(second)) == ({"fragile": "spoke"}, {"fragile": "stale"})
    error = second.trace["modules"][0]["error"]
    assert (error["type"], error["line"]) == ("ValueError", 3)
    assert "do not show this" not in second.prompt


async def test_variables_are_kept_from_turn_to_turn_and_from_session_to_session_apart(studio: Studio):
    script = 'n = ctx.get_variable("n", 0) + 1\nctx.set_variable("n", n)\nctx.set_output("n", n)'
    await studio.module("counter", script=script, content="Turn ${n}.")
    session, other = await studio.session("@counter"), await studio.session("@counter")
    prompts = []
    for where in (session, session, other):
        await studio.say(where, "x")
        prompts.append(studio.system_prompt())
    assert prompts == ["Turn 1.", "Turn 2.", "Turn 1."]


async def test_a_script_that_asks_a_model_runs_in_the_second_stage_and_is_paid_for(studio: Studio):
    await studio.module("base", content="Base.")
    await studio.module("mood", script='ctx.set_output("m", ctx.generate("One word:", ctx.get_user_message()))')
    session = await studio.session("@base Mood: @mood")
    studio.model.reply("gloomy")
    studio.model.reply("Oh dear.")
    frames = await studio.say(session, "It rains.")
    stages = [(e["stage"], [m["name"] for m in e["modules"]]) for e in events(frames, "stage_update") if e["modules"]]
    assert stages[:2] == [(1, ["base"]), (2, ["mood"])]
    assert studio.model.requests[0].body["messages"] == [
        {"role": "system", "content": "One word:"},
        {"role": "user", "content": "It rains."},
    ]
    assert studio.system_prompt() == "Base. Mood: gloomy"
    studio.model.reply("Oh dear.")
    alone = events(await studio.say(await studio.session("@base"), "It rains."), "assistant_end")[0]["usage"]
    both = events(frames, "assistant_end")[0]["usage"]
    assert both["output_tokens"] == alone["output_tokens"] + 1


async def test_a_module_on_demand_speaks_when_it_is_named(studio: Studio):
    await studio.module("recipe", content="Cook well.", execution_context="ON_DEMAND")
    session = await studio.session("Base.")
    await studio.say(session, "Hello")
    assert studio.system_prompt() == "Base."
    await studio.say(session, "Use @recipe please")
    assert studio.system_prompt() == "Base.\n\nCook well."
    assert studio.model.requests[-1].body["messages"][-1]["content"] == "Use @recipe please"


async def test_modules_that_run_each_other_get_an_error_and_not_a_deadlock(studio: Studio):
    await studio.module("left", script='ctx.set_output("t", ctx.run_module("right"))')
    await studio.module("right", script='ctx.set_output("t", ctx.run_module("left"))')
    session = await studio.session("[@left]")
    begun = time.monotonic()
    trace = await studio.trace(await studio.say(session, "x"))
    assert studio.system_prompt() == "[]"
    assert states(trace) == {"left": "spoke", "right": "failed"}
    assert time.monotonic() - begun < 10


async def test_an_interrupt_stops_a_script_that_spins(studio: Studio):
    await studio.module("spin", script="while True:\n    pass", timeout_ms=20_000)
    session = await studio.session("@spin")
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        await read_until(attachment, "stage_update")
        begun = time.monotonic()
        await chat.interrupt(LOCAL_OWNER, session, None)
        frames = await read_until(attachment, "assistant_end")
        elapsed = time.monotonic() - begun
    stopped = next(orjson.loads(frame.text) for frame in frames if frame.type == "interrupted")
    assert stopped["phase"] == "composing"
    assert elapsed < 5
    assert studio.model.requests == []
    assert events(await studio.say(await studio.session("fine"), "next"), "assistant_end")[0]["finish_reason"] == "stop"


async def test_many_sessions_compose_side_by_side(studio: Studio):
    for number in range(5):
        await studio.module(f"m{number}", script=f'ctx.set_output("t", "{number}")')
    sessions = [await studio.session("@m0 @m1 @m2 @m3 @m4") for _ in range(10)]
    await asyncio.gather(*(studio.say(session, "x") for session in sessions))
    assert {studio.system_prompt(request) for request in range(10)} == {"0 1 2 3 4"}


async def test_one_place_for_scripts_is_enough_for_many_sessions_with_modules_that_run_each_other(
    database_url: str, model: OpenAIFake
):
    async with studio_with(database_url, model, sandbox={"workers": 1}) as studio:
        await studio.module("outer", script='ctx.set_output("t", "<" + ctx.run_module("inner") + ">")')
        await studio.module("inner", script='ctx.set_output("t", ctx.run_module("core").upper())')
        await studio.module("core", script='ctx.set_output("t", "core")')
        sessions = [await studio.session(template) for template in ("@outer @core", "@core @inner @outer") * 5]
        await asyncio.gather(*(studio.say(session, "x") for session in sessions))
        prompts = sorted(str(studio.system_prompt(request)) for request in range(10))
    assert prompts == ["<CORE> core"] * 5 + ["core CORE <CORE>"] * 5
