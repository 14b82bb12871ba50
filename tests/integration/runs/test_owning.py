"""One owner for each running session: leases, fences, recovery."""

import asyncio

import asyncpg
import orjson
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, ReplicaId, SessionId, new_id
from db.pool import Database
from db.stores.events import Batch, EventStore, NewEvent
from db.stores.leases import Claimed, LeaseStore
from db.stores.runs import Ending, RunStore
from services.inbox import Send
from services.runs.feed import JournalGone
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text, Wait
from tests.integration.runs.conftest import open_replica, read_until
from tests.waiting import eventually


def types(frames) -> list[str]:
    return [frame.type for frame in frames]


async def test_an_owner_that_died_has_its_reply_closed_with_what_was_shown(database_url: str, model: OpenAIFake):
    model.script(Text("partial "), Hang())
    async with open_replica(database_url, model) as second:
        async with open_replica(database_url, model) as first:
            session_id = (await first.sessions.create(LOCAL_OWNER)).id
            async with second.chat.attach(LOCAL_OWNER, session_id) as attachment:
                await first.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
                frames = await read_until(attachment, "text_delta")
                await _die(first)
                frames += await read_until(attachment, "assistant_end")

        assert types(frames)[-2:] == ["interrupted", "assistant_end"]
        assert orjson.loads(frames[-2].text)["by"] == "recovery"
        page = await second.messages.page(LOCAL_OWNER, session_id, before=None, limit=10)
        assert [(m.content, m.finish_reason) for m in page.messages] == [("partial ", "interrupted"), ("Hi", None)]


async def test_a_run_that_never_began_is_performed_by_whoever_takes_over(database_url: str, model: OpenAIFake):
    model.reply("answer")
    async with open_replica(database_url, model) as services:
        session_id = (await services.sessions.create(LOCAL_OWNER)).id
        connection = await asyncpg.connect(database_url)
        # What a replica leaves behind that dies between accepting a message and its first step.
        run_id, message_id = new_id(), new_id()
        await connection.execute(
            """
            INSERT INTO messages (id, session_id, run_id, role, content, token_count)
            VALUES ($3, $1, $2, 'user', 'Hi', 1)
            """,
            session_id,
            run_id,
            message_id,
        )
        await connection.execute("UPDATE sessions SET active_leaf_id = $2 WHERE id = $1", session_id, message_id)
        await connection.execute(
            """
            INSERT INTO runs (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq)
            VALUES ($2, $1, $4, 'c', $3, 'running', $5, 1)
            """,
            session_id,
            run_id,
            message_id,
            LOCAL_OWNER,
            '{"persona_id": null, "connection": null, "model": null, "controls": {}, "turns": 1, "digest": ""}',
        )
        await connection.execute(
            "INSERT INTO events (session_id, seq, run_id, type, body) VALUES ($1, 1, $2, 'message_accepted', $3)",
            session_id,
            run_id,
            orjson.dumps({"run_id": str(run_id)}).decode(),
        )
        async with services.chat.attach(LOCAL_OWNER, session_id, after=0) as attachment:
            await connection.execute(
                """
                UPDATE journals SET last_seq = 1, run_id = $2, replica_id = $3, fence = 1, lease_until = now()
                WHERE session_id = $1
                """,
                session_id,
                run_id,
                new_id(),
            )
            frames = await read_until(attachment, "assistant_end")
        await connection.close()
        end = next(frame for frame in frames if frame.type == "assistant_end")
        assert orjson.loads(end.text)["finish_reason"] == "stop"
        assert "text_delta" in types(frames)


async def test_a_sleeper_cannot_write_after_its_lease_was_taken(database_url: str, model: OpenAIFake):
    database = await Database.connect(database_url, size=2)
    try:
        runs, events = RunStore(database, lease_seconds=0.001), EventStore(database)
        leases = LeaseStore(database, lease_seconds=0.001)
        model.script(Hang())
        async with open_replica(database_url, model) as services:
            session_id = (await services.sessions.create(LOCAL_OWNER)).id
            await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
            await model.request()
            sleeper = services.engine.performing[0].claimed
            taken: list[Claimed] = []
            async with asyncio.timeout(5):
                while not taken:  # the owner is awake and may renew in between
                    await _expire(database_url, session_id)
                    taken = await leases.take_over(ReplicaId(new_id()), besides=[], limit=10)
            assert [claimed.run.id for claimed in taken] == [sleeper.run.id]

            late = Batch(session_id, sleeper.run.id, sleeper.lease.fence, [NewEvent("text_delta", '{"delta":"late"}')])
            fresh = Batch(session_id, sleeper.run.id, taken[0].lease.fence, [NewEvent("text_delta", '{"delta":"new"}')])
            assert await events.append([late], flush_id=1, lease_seconds=1) == {}
            assert session_id in await events.append([fresh], flush_id=2, lease_seconds=60)
            ending = Ending([NewEvent("assistant_end", "{}")], None, "stop", None, {}, {})
            assert await runs.finish(sleeper, ending, take_next=True) is None
            bodies = [event.body for event in await events.after(session_id, 0, limit=1000)]
            assert '{"delta":"new"}' in bodies
            assert '{"delta":"late"}' not in bodies
    finally:
        await database.close()


async def test_a_session_deleted_under_its_run_does_not_disturb_the_others(services: Services, model: OpenAIFake):
    gate = asyncio.Event()
    kept, deleted = [(await services.sessions.create(LOCAL_OWNER)).id for _ in range(2)]
    for session_id in (kept, deleted):
        model.script(Text("a"), Wait(gate), Text("b"))
        await services.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
        await model.request(0 if session_id == kept else 1)
    async with (
        services.chat.attach(LOCAL_OWNER, kept) as attachment,
        services.chat.attach(LOCAL_OWNER, deleted) as gone,
    ):
        await services.sessions.delete(LOCAL_OWNER, deleted, version=None)
        with pytest.raises(JournalGone):
            await read_until(gone, "never")
        gate.set()
        frames = await read_until(attachment, "assistant_end")
    end = next(frame for frame in frames if frame.type == "assistant_end")
    assert orjson.loads(end.text)["finish_reason"] == "stop"
    await eventually(lambda: not services.engine.performing)


async def test_queued_messages_left_by_a_dead_owner_are_answered(database_url: str, model: OpenAIFake):
    model.script(Text("partial"), Hang())
    model.reply("second answer")
    async with open_replica(database_url, model) as second:
        async with open_replica(database_url, model) as first:
            session_id = (await first.sessions.create(LOCAL_OWNER)).id
            async with second.chat.attach(LOCAL_OWNER, session_id) as attachment:
                await first.chat.send(LOCAL_OWNER, session_id, Send(["one"]))
                await read_until(attachment, "text_delta")
                await first.chat.send(LOCAL_OWNER, session_id, Send(["two"], when_busy="queue"))
                await _die(first)
                await read_until(attachment, "post_response_complete")
        page = await second.messages.page(LOCAL_OWNER, session_id, before=None, limit=10)
        assert [m.content for m in reversed(page.messages)] == ["one", "partial", "two", "second answer"]


async def test_an_interrupt_on_another_replica_stops_the_run(database_url: str, model: OpenAIFake):
    model.script(Text("partial"), Hang())
    async with open_replica(database_url, model) as first, open_replica(database_url, model) as second:
        session_id = (await first.sessions.create(LOCAL_OWNER)).id
        async with second.chat.attach(LOCAL_OWNER, session_id) as attachment:
            await first.chat.send(LOCAL_OWNER, session_id, Send(["Hi"]))
            await read_until(attachment, "text_delta")
            await second.chat.interrupt(LOCAL_OWNER, session_id, None)
            frames = await read_until(attachment, "assistant_end")
        request = await model.request()
        await asyncio.wait_for(request.closed, 5)
        assert request.ended_by == "client"
        assert types(frames) == ["interrupted", "assistant_end"]


async def _die(services: Services) -> None:
    """As kill -9 would: nothing more is written, and the lease runs out by itself."""
    engine = services.engine
    engine.is_draining = True
    for run in engine.performing:
        run.lose()


async def _expire(database_url: str, session_id: SessionId) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE journals SET lease_until = now() - interval '1 second' WHERE session_id = $1", session_id
    )
    await connection.close()
