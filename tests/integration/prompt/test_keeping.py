"""What modules leave outlives a crash as a whole or not at all, and is counted once."""

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import orjson
import pytest

from db.ids import LOCAL_OWNER, ModuleId
from db.pool import Database
from services.inbox import Send
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text
from tests.integration.prompt.conftest import Studio, events
from tests.integration.runs.conftest import open_replica, read_until
from tests.waiting import eventually

COUNT = """
n = ctx.get_variable("n", 0) + 1
ctx.set_variable("n", n)
ctx.set_output("n", n)
"""


@pytest.fixture
async def behind(database_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A connection past the service."""
    connection = await asyncpg.connect(database_url)
    await connection.set_type_codec("jsonb", encoder=orjson.dumps, decoder=orjson.loads, schema="pg_catalog")
    yield connection
    await connection.close()


async def variables(behind: asyncpg.Connection, module: ModuleId) -> dict[str, object]:
    rows = await behind.fetch("select name, value from module_variables where module_id = $1", module)
    return {row["name"]: row["value"] for row in rows}


async def until_over(behind: asyncpg.Connection) -> None:
    async def is_over() -> bool:
        left = "select (select count(*) from post_responses where state <> 'done')"
        return not await behind.fetchval(f"{left} + (select count(*) from runs where state <> 'finished')")

    await eventually(is_over, 30)


async def test_a_crash_between_keeping_and_finishing_counts_nothing_twice(
    database_url: str, model: OpenAIFake, behind: asyncpg.Connection
):
    database = await Database.connect(database_url, size=2)
    async with open_replica(database_url, model) as services:
        studio = Studio(database, services, model)
        late = await studio.module("late", script=COUNT, execution_context="POST_RESPONSE")
        session = await studio.session("<@late>")
        await studio.say(session, "one")
        await until_over(behind)
        assert await variables(behind, late.id) == {"n": 1}

        await studio.say(session, "two")
        # The stage can be kept, but nothing can be told any more: its owner dies between the two.
        async with behind.transaction():
            await behind.execute("select from journals where session_id = $1 for update", session)

            async def is_kept() -> bool:
                return (await variables(behind, late.id))["n"] == 2

            await eventually(is_kept, 30)
            await services.afterwork.leave()

    async with open_replica(database_url, model) as services:
        await until_over(behind)
        assert await variables(behind, late.id) == {"n": 2}
        studio = Studio(database, services, model)
        await studio.say(session, "three")
        assert studio.system_prompt() == "<2>"
    await database.close()


async def test_a_run_that_is_begun_anew_does_not_run_again_what_was_kept(studio: Studio, behind: asyncpg.Connection):
    counter = await studio.module("counter", script=COUNT, content="${n} turns")
    session = await studio.session("@counter, ${counter.n}")
    await studio.say(session, "one")
    chat = studio.services.chat
    studio.model.script(Text("wait"), Hang())
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        await chat.send(LOCAL_OWNER, session, Send(["two"]))
        await studio.model.request(1)
        accepted = await chat.send(LOCAL_OWNER, session, Send(["three"], when_busy="queue"))
        # As if its owner had died when the results were kept and nothing was told yet.
        await behind.execute(
            """
            update module_results set run_id = $2, run_seq = (select first_seq from runs where id = $2),
                text = '7 turns', outputs = '{"n": 7}' where module_id = $1
            """,
            counter.id,
            accepted.run.id,
        )
        await behind.execute("update module_variables set value = '7' where module_id = $1", counter.id)
        await chat.interrupt(LOCAL_OWNER, session, None)
        await read_until(attachment, "assistant_end", count=2)

    assert studio.system_prompt() == "7 turns, 7"
    assert await variables(behind, counter.id) == {"n": 7}


async def test_nothing_of_a_reply_is_shown_before_what_led_to_it_is_kept(studio: Studio, behind: asyncpg.Connection):
    counter = await studio.module("counter", script=COUNT)
    session = await studio.session("@counter")
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        async with behind.transaction():
            await behind.execute("lock table run_traces in share mode")
            await chat.send(LOCAL_OWNER, session, Send(["one"]))
            request = await studio.model.request(0)
            await asyncio.wait_for(request.closed, 20)  # the model has said it all
            shown = {row["type"] for row in await behind.fetch("select type from events")}
            assert not shown & {"assistant_start", "text_delta", "assistant_end"}
        frames = await read_until(attachment, "assistant_end")
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert await variables(behind, counter.id) == {"n": 1}


async def test_what_a_module_gave_is_kept_as_a_whole_or_not_at_all(studio: Studio, behind: asyncpg.Connection):
    counter = await studio.module("counter", script=COUNT)
    session = await studio.session("@counter")
    await studio.say(session, "one")
    await behind.execute(
        """
        create function refuse() returns trigger language plpgsql as 'begin raise exception ''full''; end';
        create trigger refusing before insert on run_traces for each row execute function refuse();
        """
    )

    frames = await studio.say(session, "two")  # the trace cannot be stored: a broken disk costs nobody a reply
    assert events(frames, "assistant_end")[0]["finish_reason"] == "stop"
    assert await variables(behind, counter.id) == {"n": 1}
    assert await behind.fetchval("select outputs from module_results") == {"n": 1}

    await behind.execute("drop trigger refusing on run_traces")
    await studio.say(session, "three")
    assert studio.system_prompt() == "2"
    assert await variables(behind, counter.id) == {"n": 2}


async def test_a_run_that_is_stopped_while_it_keeps_is_closed_after_that(studio: Studio, behind: asyncpg.Connection):
    counter = await studio.module("counter", script=COUNT)
    session = await studio.session("@counter")
    chat = studio.services.chat
    studio.model.script(Text("begun"), Hang())
    async with chat.attach(LOCAL_OWNER, session) as attachment:
        async with behind.transaction():
            await behind.execute("lock table run_traces in share mode")
            await chat.send(LOCAL_OWNER, session, Send(["one"]))
            await studio.model.request(0)
            await chat.interrupt(LOCAL_OWNER, session, None)
        frames = await read_until(attachment, "assistant_end")
    assert events(frames, "assistant_end")[0]["finish_reason"] == "interrupted"
    assert await variables(behind, counter.id) == {"n": 1}
    assert (await studio.trace(frames)).prompt == "1"


async def test_modules_that_only_a_script_ran_are_kept_too_before_and_after_the_reply(
    studio: Studio, behind: asyncpg.Connection
):
    helper = await studio.module("helper", script=COUNT, execution_context="ON_DEMAND")
    await studio.module("early", script='ctx.set_output("t", ctx.run_module("helper"))', trigger_pattern="early")
    await studio.module(
        "late",
        script='ctx.set_output("t", ctx.run_module("helper"))',
        trigger_pattern="late",
        execution_context="POST_RESPONSE",
    )
    session = await studio.session("<@early><@late>")
    prompts = []
    for words in ("early", "late", "early and late", "neither"):
        await studio.say(session, words)
        await until_over(behind)
        prompts.append(studio.system_prompt())

    # In the third turn the helper has its one run before the reply; what runs after it reads that.
    assert prompts == ["<1><>", "<><>", "<3><2>", "<><3>"]
    assert await variables(behind, helper.id) == {"n": 3}


async def test_changes_between_numbers_that_python_takes_for_the_same_are_kept(
    studio: Studio, behind: asyncpg.Connection
):
    script = """
turn = ctx.get_message_count()
ctx.set_variable("v", [1, 1.0, True][turn // 2])
ctx.set_output("t", ctx.to_json(ctx.get_variable("v")))
"""
    module = await studio.module("mood", script=script)
    session = await studio.session("@mood")
    kept = []
    for words in ("one", "two", "three"):
        await studio.say(session, words)
        kept.append(repr((await variables(behind, module.id))["v"]))
    assert kept == ["1", "1.0", "True"]


async def test_a_connection_that_breaks_under_a_script_after_the_reply_costs_no_words(
    studio: Studio, behind: asyncpg.Connection
):
    script = 'ctx.set_output("t", "memories: " + str(len(ctx.get_recent_memories(5))))'
    late = await studio.module("late", script=script, execution_context="POST_RESPONSE")
    session = await studio.session("<@late>")
    waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%FROM memories%'"

    async def is_waiting() -> bool:
        await behind.execute("select pg_stat_clear_snapshot()")  # a transaction sees the same otherwise
        return await behind.fetchval(waiting) is not None

    async with behind.transaction():
        await behind.execute("lock table memories in access exclusive mode")
        await studio.say(session, "one")
        await eventually(is_waiting, 20)
        await behind.execute(f"select pg_terminate_backend(pid) from ({waiting}) as _")

    await until_over(behind)
    assert await behind.fetchval("select text from module_results where module_id = $1", late.id) == "memories: 0"
