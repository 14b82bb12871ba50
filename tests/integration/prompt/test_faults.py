"""What goes wrong in a module costs that module's words, never the turn."""

import asyncio
import os
import signal
import sys
import sysconfig
from pathlib import Path

import orjson
import pytest

from db.ids import LOCAL_OWNER
from services.inbox import Send
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Status, Text, Wait
from tests.integration.prompt.conftest import Studio, events, studio_with
from tests.integration.runs.conftest import read_until
from tests.integration.scripts.processes import computing, workers
from tests.waiting import eventually

FAULTS = {
    "raises": 'raise ValueError("boom")',
    "syntax": "def broken(:",
    "endless": "while True:\n    pass",
    "recursion": "def f():\n    return f()\nf()",
    "memory": 'x = "a" * 10_000_000\ny = [x + str(i) for i in range(1000)]',
    "printing": 'while True:\n    print("x" * 1000)',
    "outputs": 'ctx.set_output("t", ["x" * 1000] * 1000)',
    "no such function": "ctx.launch_missiles()",
    "not json": 'ctx.set_output("t", {1, 2})',
    "imports": "import os\nos.system('true')",
    "asks for ever": 'for i in range(100):\n    ctx.generate("again")',
    "unknown connection": 'ctx.set_output("t", ctx.generate("x", provider="nobody"))',
    "calls for ever": "while True:\n    ctx.get_message_count()",
}


@pytest.mark.parametrize("script", FAULTS.values(), ids=FAULTS.keys())
async def test_a_module_that_fails_costs_only_its_words(studio: Studio, script: str):
    await studio.module("bad", script=script, timeout_ms=3_000)
    await studio.module("good", script='ctx.set_output("t", "fine")')
    session = await studio.session("[@bad] [@good]")
    frames = await studio.say(session, "Hi")
    trace = await studio.trace(frames)
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert studio.system_prompt() == trace.prompt == "[] [fine]"
    entry = next(entry for entry in trace.trace["modules"] if entry["module"] == "bad")
    assert entry["state"] == "failed"
    assert entry["error"]["message"]
    assert events(frames, "error") == []


async def test_a_nul_in_an_output_is_stored_and_sent_without_it(studio: Studio):
    await studio.module("nul", script='ctx.set_output("t", "a\\x00b")')
    frames = await studio.say(await studio.session("[@nul]"), "Hi")
    trace = await studio.trace(frames)
    assert "\0" not in trace.prompt
    assert studio.system_prompt() == trace.prompt
    assert trace.prompt.startswith("[a")


async def test_a_model_that_fails_inside_generate_can_be_caught_by_the_script(studio: Studio):
    script = """
try:
    ctx.set_output("t", ctx.generate("One word:"))
except RuntimeError as error:
    ctx.set_output("t", "no idea")
"""
    await studio.module("mood", script=script)
    session = await studio.session("[@mood]")
    studio.model.script(Status(401))
    await studio.say(session, "Hi")
    assert studio.system_prompt() == "[no idea]"


async def test_an_interrupt_while_a_module_waits_for_a_model_closes_that_connection(studio: Studio):
    await studio.module("mood", script='ctx.set_output("t", ctx.generate("Long thoughts."))')
    session = await studio.session("[@mood]")
    studio.model.script(Text("hm"), Hang())
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        request = await studio.model.request(0)
        await chat.interrupt(LOCAL_OWNER, session, None)
        frames = await read_until(attachment, "assistant_end")
    await asyncio.wait_for(request.closed, 5)
    assert request.ended_by == "client"
    stopped = next(orjson.loads(frame.text) for frame in frames if frame.type == "interrupted")
    assert stopped["phase"] == "composing"
    assert orjson.loads(frames[-1].text)["message_id"] is None


@pytest.mark.parametrize("asks_a_model", [False, True], ids=["stage 4", "stage 5"])
async def test_an_interrupt_after_the_reply_stops_the_stage_and_nothing_follows(studio: Studio, asks_a_model: bool):
    script = 'ctx.generate("Long thoughts.")' if asks_a_model else "while True:\n    pass"
    await studio.module("late", script=script, timeout_ms=20_000, execution_context="POST_RESPONSE")
    session = await studio.session("@late")
    chat = studio.services.chat
    studio.model.reply("Done.")
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        if asks_a_model:
            studio.model.script(Hang())
        accepted = await chat.send(LOCAL_OWNER, session, Send(["go"]))
        frames = await read_until(attachment, "assistant_end")
        if asks_a_model:
            await studio.model.request(1)
        while not any(event["stage"] > 3 for event in events(frames, "stage_update")):
            frames += await read_until(attachment, "stage_update")
        await chat.interrupt(LOCAL_OWNER, session, accepted.run.id)
        while frames[-1].type != "interrupted":
            frames += await attachment.reader.next()
    stopped = orjson.loads(frames[-1].text)
    assert stopped["phase"] == "post_response"
    assert [frame.type for frame in frames].count("assistant_end") == 1
    studio.model.reply("And again.")
    assert events(await studio.say(session, "next"), "assistant_end")[0]["finish_reason"] == "stop"


async def test_a_module_deleted_while_its_script_runs_does_not_harm_the_turn(studio: Studio):
    module = await studio.module("gone", script='ctx.set_output("t", ctx.generate("Wait."))')
    session = await studio.session("[@gone]")
    gate = asyncio.Event()
    studio.model.script(Wait(gate), Text("kept"))
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        await studio.model.request(0)
        await studio.services.modules.delete(LOCAL_OWNER, module.id, version=None, force=True)
        gate.set()
        frames = await read_until(attachment, "assistant_end")
    end = next(orjson.loads(frame.text) for frame in frames if frame.type == "assistant_end")
    assert end["finish_reason"] == "stop"
    assert studio.system_prompt() == "[kept]"


async def test_a_prompt_that_would_grow_without_end_is_refused_by_name(studio: Studio):
    await studio.module("bomb0", content="x" * 9_000)
    for level in range(1, 4):
        await studio.module(f"bomb{level}", content=f"@bomb{level - 1} " * 10)
    frames = await studio.say(await studio.session("@bomb3"), "Hi")
    (error,) = events(frames, "error")
    assert error["code"] == "prompt_too_large"
    assert error["details"]["module"].startswith("bomb")
    assert events(frames, "assistant_end")[0]["finish_reason"] == "error"
    assert studio.model.requests == []


async def test_modules_that_refer_to_each_other_stay_literal_with_a_warning(studio: Studio):
    await studio.module("chicken", content="<@egg>")
    await studio.module("egg", content="(@chicken)")
    frames = await studio.say(await studio.session("@chicken"), "Hi")
    assert studio.system_prompt() == "<(@chicken)>"
    assert any("chicken → egg → chicken" in warning for warning in (await studio.trace(frames)).trace["warnings"])


async def test_what_a_module_asked_before_an_interrupt_is_in_the_usage_of_the_run(studio: Studio):
    await studio.module("asks", script='ctx.generate("First.")\nctx.generate("Second.")')
    session = await studio.session("[@asks]")
    studio.model.reply("an answer")
    studio.model.script(Hang())
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        await studio.model.request(1)
        await chat.interrupt(LOCAL_OWNER, session, None)
        frames = await read_until(attachment, "assistant_end")
    (end,) = events(frames, "assistant_end")
    assert end["finish_reason"] == "interrupted"
    assert end["usage"]["output_tokens"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("script", ["while True:\n    pass", 'ctx.generate("Wait.")'], ids=["computes", "asks"])
async def test_a_killed_process_costs_only_the_words_of_its_module(database_url: str, model: OpenAIFake, script: str):
    async with studio_with(database_url, model, sandbox={"cpu_seconds": 60}) as studio:
        await studio.module("victim", script=f"ctx.log('begun')\n{script}", timeout_ms=60_000)
        await studio.module("other", script='ctx.set_output("t", "fine")')
        session = await studio.session("[@victim] [@other]")
        others, gate = workers(), asyncio.Event()
        if "generate" in script:
            model.script(Wait(gate), Text("too late"))
        chat = studio.services.chat
        async with chat.attach(LOCAL_OWNER, session) as attachment:
            await chat.send(LOCAL_OWNER, session, Send(["go"]))
            begun = (lambda: model.requests) if "generate" in script else (lambda: computing(os.getpid()) - others)
            await eventually(begun, 20)
            for process in workers() - others:
                os.kill(process, signal.SIGKILL)
            gate.set()
            frames = await read_until(attachment, "assistant_end")
        trace = await studio.trace(frames)
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert studio.system_prompt() == "[] [fine]"
    entry = next(entry for entry in trace.trace["modules"] if entry["module"] == "victim")
    assert (entry["state"], entry["error"]["type"]) == ("failed", "WorkerLost")


@pytest.mark.parametrize("change", ["edited", "deleted"])
@pytest.mark.parametrize("context", ["IMMEDIATE", "POST_RESPONSE"])
async def test_a_run_goes_on_with_the_module_that_it_began_with(studio: Studio, change: str, context: str):
    script = 'ctx.set_variable("v", 1)\nctx.set_output("t", ctx.generate("Wait."))'
    module = await studio.module("m", script=script, content="<${t}>", execution_context=context)
    session = await studio.session("[@m]")
    gate = asyncio.Event()
    chat, modules = studio.services.chat, studio.services.modules
    if context == "POST_RESPONSE":
        studio.model.reply("Well.")
    studio.model.script(Wait(gate), Text("kept"))
    last = "post_response_complete" if context == "POST_RESPONSE" else "assistant_end"
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        await studio.model.request(1 if context == "POST_RESPONSE" else 0)
        if change == "deleted":
            await modules.delete(LOCAL_OWNER, module.id, version=None, force=True)
        else:
            new = {"script": 'ctx.set_output("t", "new")', "content": "new ${t}", "execution_context": "IMMEDIATE"}
            await modules.update(LOCAL_OWNER, module.id, new, version=None)
        gate.set()
        frames = await read_until(attachment, last)
    assert events(frames, "error") == []
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    if context == "POST_RESPONSE":
        (told,) = orjson.loads(frames[-1].text)["modules"]
        assert (told["name"], told["status"]) == ("m", "spoke")
    else:
        assert studio.system_prompt() == "[<kept>]"
    await studio.say(session, "next")
    assert studio.system_prompt() == ("[@m]" if change == "deleted" else "[new new]")


EXPLODING = {
    "many times the same": "l = [0] * 60\nfor _ in range(12):\n    l = [l] * 60",
    "holds itself": "l = []\nl.append(l)",
    "deep": "l = []\nfor _ in range(150):\n    l = [l]",
    "not a number": "l = [float('nan')]",
    "bytes": "l = b'x'",
    "an object": "l = ctx",
    "huge integer": "l = 10**100",
    "odd keys": "l = {None: 1}",
}


REFUSED = """
def refused(call):
    try:
        call()
    except ValueError:
        return 1
    return 0

calls = [lambda: ctx.set_output("o", l), lambda: ctx.set_variable("v", l), lambda: ctx.log(l), lambda: ctx.generate(l)]
ctx.set_output("t", sum([refused(call) for call in calls]))
"""


@pytest.mark.parametrize("value", EXPLODING.values(), ids=EXPLODING.keys())
async def test_values_that_are_not_json_or_explode_are_refused_by_every_call(studio: Studio, value: str):
    await studio.module("odd", script=value + REFUSED)
    frames = await studio.say(await studio.session("[@odd]"), "Hi")
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert studio.system_prompt() == "[4]"


async def test_nuls_and_half_characters_are_stored_without_harm_wherever_a_script_puts_them(studio: Studio):
    odd = "a\\0b\\ud800c"
    script = f"""
ctx.set_output("t", "{odd}")
ctx.set_output("d", {{"{odd}": ["{odd}"]}})
ctx.set_variable("v{odd}", {{"{odd}": "{odd}"}})
ctx.log("{odd}")
print("{odd}")
ctx.store_memory("{odd}", metadata={{"{odd}": "{odd}"}})
"""
    await studio.module("odd", script=script, content="${t}")
    session = await studio.session("[@odd]")
    for _ in range(2):
        frames = await studio.say(session, "Hi")
        assert (await studio.trace(frames)).trace["modules"][0]["state"] == "spoke"
        assert studio.system_prompt() == "[ab\N{REPLACEMENT CHARACTER}c]"


async def test_without_the_interpreter_the_service_starts_and_modules_with_scripts_have_nothing_to_say(
    database_url: str, model: OpenAIFake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))  # pyright: ignore[reportUnknownLambdaType]
    async with studio_with(database_url, model) as studio:
        await studio.module("script", script='ctx.set_output("t", "fine")')
        await studio.module("text", content="plain")
        frames = await studio.say(await studio.session("[@script] [@text]"), "Hi")
        entry = (await studio.trace(frames)).trace["modules"][0]
        parts = {part.name: part for part in await studio.services.health.parts()}
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert studio.system_prompt() == "[] [plain]"
    assert (entry["state"], entry["error"]["type"]) == ("failed", "InterpreterMissing")
    assert not parts["scripts"].works
    assert not parts["scripts"].is_essential
