"""What modules do after a reply is there for the next turn, and never holds it up."""

import asyncpg
import orjson

from db.ids import LOCAL_OWNER
from services.inbox import Send
from tests.fakes.script import Hang, Text
from tests.integration.prompt.conftest import Studio, events
from tests.integration.runs.conftest import read_until

COUNT = """
n = ctx.get_variable("n", 0) + 1
ctx.set_variable("n", n)
ctx.set_output("note", f"Reply {n} was: {ctx.get_ai_response()}")
"""


async def whole(studio: Studio, session_id, words: str):
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session_id) as attachment:
        await chat.send(LOCAL_OWNER, session_id, Send([words], when_busy="queue"))
        return await read_until(attachment, "post_response_complete")


async def test_the_next_turn_reads_what_a_module_found_after_the_reply(studio: Studio):
    await studio.module("notes", script=COUNT, content="[${note}]", execution_context="POST_RESPONSE")
    session = await studio.session("Base @notes")
    prompts = []
    for reply in ("one", "two", "three"):
        studio.model.reply(reply)
        frames = await whole(studio, session, "go")
        prompts.append(studio.system_prompt())
    assert prompts == ["Base ", "Base [Reply 1 was: one]", "Base [Reply 2 was: two]"]
    stages = [(e["stage"], e["status"]) for e in events(frames, "stage_update") if e["stage"] > 3]
    assert stages == [(4, "started"), (4, "finished"), (5, "started"), (5, "finished")]
    done = orjson.loads(frames[-1].text)
    assert [(module["name"], module["status"]) for module in done["modules"]] == [("notes", "spoke")]


async def test_its_trigger_looks_at_the_reply_too(studio: Studio):
    await studio.module(
        "alarm",
        script='ctx.set_output("t", "heard")',
        trigger_pattern="dragon",
        execution_context="POST_RESPONSE",
    )
    session = await studio.session("<@alarm>")
    for reply in ("nothing here", "a dragon came", "bye"):
        studio.model.reply(reply)
        await whole(studio, session, "go")
    assert [studio.system_prompt(request) for request in range(3)] == ["<>", "<>", "<heard>"]


async def test_a_module_that_reflects_with_a_model_runs_last_and_sees_the_prompt(studio: Studio):
    await studio.module(
        "thought", script='ctx.set_output("t", ctx.reflect("How did it go?"))', execution_context="POST_RESPONSE"
    )
    session = await studio.session("You are Ada. @thought")
    studio.model.reply("Hello!")
    studio.model.reply("It went well.")
    frames = await whole(studio, session, "Hi")
    question = studio.model.requests[1].body["messages"]
    assert question[0] == {"role": "system", "content": "You are Ada. "}
    assert question[-1]["content"] == "How did it go?"
    stages = [(e["stage"], [m["name"] for m in e["modules"]]) for e in events(frames, "stage_update") if e["modules"]]
    assert (5, ["thought"]) in stages
    studio.model.reply("Again.")
    await studio.say(session, "And now?")
    assert studio.system_prompt(2) == "You are Ada. It went well."


async def test_a_new_message_does_not_wait_for_it(studio: Studio):
    await studio.module(
        "slow", script='ctx.set_output("t", ctx.generate("Think long."))', execution_context="POST_RESPONSE"
    )
    session = await studio.session("@slow")
    studio.model.reply("first")
    studio.model.script(Text("thinking"), Hang())
    await studio.say(session, "one")
    await studio.model.request(1)
    studio.model.reply("second")
    frames = await studio.say(session, "two")
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert studio.system_prompt() is None


async def test_an_interrupted_reply_has_no_afterwards(studio: Studio):
    await studio.module("notes", script=COUNT, execution_context="POST_RESPONSE")
    session = await studio.session("@notes")
    chat = studio.services.chat
    studio.model.script(Text("partial"), Hang())
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["go"]))
        await read_until(attachment, "text_delta")
        await chat.interrupt(LOCAL_OWNER, session, None)
        await read_until(attachment, "assistant_end")
    await whole(studio, session, "again")
    await studio.say(session, "and again")
    prompt = studio.system_prompt()
    assert prompt is not None
    assert prompt.startswith("Reply 1 was: ")


async def test_what_modules_ask_after_a_reply_is_counted_with_the_work_and_not_with_the_reply(
    studio: Studio, database_url: str
):
    await studio.module("asks", script='ctx.set_output("t", ctx.generate("Hm?"))', execution_context="POST_RESPONSE")
    session = await studio.session("@asks")
    studio.model.reply("one")
    studio.model.reply("two")
    await whole(studio, session, "go")
    database = await asyncpg.connect(database_url)
    try:
        usage = orjson.loads(await database.fetchval("SELECT usage FROM post_responses WHERE session_id = $1", session))
    finally:
        await database.close()
    (spent,) = (counts for name, counts in usage.items() if name.startswith("modules/"))
    assert spent["output_tokens"] > 0
