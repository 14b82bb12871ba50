"""The work after a reply: in order, in nobody's way, done though its owner dies, and stopped when somebody says so."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from api.assembly import Services
from db.errors import DatabaseUnavailable
from db.ids import LOCAL_OWNER, ReplicaId, RunId, SessionId, new_id
from db.pool import Database
from db.stores.events import NewEvent
from db.stores.post_responses import PostClaim, PostResponseStore
from services.chat import Attachment
from services.errors import NothingRunning
from services.inbox import Send
from services.runs.active import ActiveRun
from services.runs.afterwork import PostWork
from services.runs.events import StageUpdate
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Status, Text
from tests.integration.runs.conftest import open_replica, read_until
from tests.postgres_proxy import proxied
from tests.waiting import eventually

Step = asyncio.Event | Exception
"""What the work of stage 4 consists of: waiting for something, or failing."""

WHOLE = ["4 started", "4 finished", "5 started", "5 finished", "post_response_complete"]


class Diarist:
    """Writes down what it was asked to do; the first piece of work is the first of `steps`, and so on."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.is_wanted = True
        self.begun: list[RunId] = []
        self.done: list[RunId] = []
        self.cancelled: list[RunId] = []

    def wants(self, run: ActiveRun) -> bool:
        assert run.draft.text, "is asked when the reply is whole"
        return self.is_wanted

    async def respond(self, work: PostWork) -> Sequence[Mapping[str, Any]]:
        self.begun.append(work.record.id)
        work.emit(StageUpdate.began(4))
        try:
            await self._take_step()
        except asyncio.CancelledError:
            self.cancelled.append(work.record.id)
            raise
        work.emit(StageUpdate.ended(4))
        work.emit(StageUpdate.began(5))
        work.emit(StageUpdate.ended(5))
        self.done.append(work.record.id)
        return [{"name": "diary", "status": "spoke", "ms": 0}]

    async def _take_step(self) -> None:
        match self.steps.pop(0) if self.steps else None:
            case asyncio.Event() as gate:
                await gate.wait()
            case Exception() as error:
                raise error
            case None:
                pass


class Chat:
    """A session of one replica, and what is read of it."""

    def __init__(self, services: Services, session_id: SessionId, attachment: Attachment) -> None:
        self.services = services
        self.session_id = session_id
        self.attachment = attachment
        self.frames: list[Frame] = []

    async def say(self, text: str, *, until: str = "assistant_end") -> RunId:
        """Send a message, and read until its reply has ended."""
        accepted = await self.services.chat.send(LOCAL_OWNER, self.session_id, Send([text]))
        await self.until(until, accepted.run.id)
        return accepted.run.id

    async def until(self, event: str, run_id: RunId) -> None:
        """Read until there is that event of the run: a type, or what `after` makes of a stage."""
        async with asyncio.timeout(15):
            while event not in [*self.after(run_id), *(f.type for f in self.frames if f.run_id == run_id)]:
                self.frames.extend(await self.attachment.reader.next())

    def after(self, run_id: RunId) -> list[str]:
        """What was told of the run after its reply had ended."""
        mine = [frame for frame in self.frames if frame.run_id == run_id]
        ends = [position for position, frame in enumerate(mine) if frame.type == "assistant_end"]
        return [_in_short(frame) for frame in mine[ends[0] + 1 :]] if ends else []

    async def interrupt(self, run_id: RunId | None = None) -> RunId:
        """Stop a run or the work after it."""
        return await self.services.chat.interrupt(LOCAL_OWNER, self.session_id, run_id)

    def assert_gapless(self) -> None:
        """Nothing was missed, nothing was told twice."""
        assert [frame.seq for frame in self.frames] == list(range(1, len(self.frames) + 1))


def _in_short(frame: Frame) -> str:
    body = orjson.loads(frame.text)
    return f"{body['stage']} {body['status']}" if frame.type == "stage_update" else frame.type


@asynccontextmanager
async def chatting(*replicas: Services):
    """The same new session, read at each of the replicas."""
    session_id = (await replicas[0].sessions.create(LOCAL_OWNER)).id
    async with AsyncExitStack() as stack:
        yield [
            Chat(
                services,
                session_id,
                await stack.enter_async_context(services.chat.attach(LOCAL_OWNER, session_id, after=0)),
            )
            for services in replicas
        ]


def body_of(frames: Sequence[Frame], type: str) -> dict[str, Any]:
    return orjson.loads(next(frame.text for frame in frames if frame.type == type))


async def states(database_url: str) -> list[str]:
    """Of all work after replies, in the order in which it is due."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT state FROM post_responses ORDER BY session_id, position")
    finally:
        await connection.close()
    return [row["state"] for row in rows]


async def assert_at_rest(database_url: str, *replicas: Services) -> None:
    """Nothing is left in progress."""
    await eventually(lambda: not any(services.afterwork.working for services in replicas))
    assert set(await states(database_url)) <= {"done"}


async def die(services: Services) -> None:
    """As kill -9 would: nothing more is written, and the lease runs out by itself."""
    services.afterwork.drain()
    for work in services.afterwork.working:
        work.lose()
    await eventually(lambda: not services.afterwork.working)


# --- what is done, and when ----------------------------------------------------------------------------------------


async def test_what_is_done_after_a_reply_is_told_after_its_end(database_url: str, model: OpenAIFake):
    diarist = Diarist()
    model.reply("Hello")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        run_id = await chat.say("Hi", until="post_response_complete")

        assert chat.after(run_id) == WHOLE
        complete = body_of(chat.frames, "post_response_complete")
        assert complete["run_id"] == str(run_id)
        assert complete["modules"] == [{"name": "diary", "status": "spoke", "ms": 0}]
        chat.assert_gapless()
        assert diarist.done == [run_id]
        await assert_at_rest(database_url, services)


async def test_a_reply_after_which_nothing_is_wanted_is_closed_at_once(database_url: str, model: OpenAIFake):
    diarist = Diarist()
    diarist.is_wanted = False
    model.reply("Hello")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        run_id = await chat.say("Hi", until="post_response_complete")

        assert chat.after(run_id) == WHOLE
        assert diarist.begun == []
        assert await states(database_url) == []


async def test_after_a_reply_that_failed_or_was_stopped_nothing_is_done(database_url: str, model: OpenAIFake):
    diarist = Diarist()
    model.script(Status(400, "no"))
    model.script(Text("Well"), Hang())
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        failed = await chat.say("Fail")
        stopped = await chat.say("Ramble", until="text_delta")
        await chat.interrupt()
        await chat.until("assistant_end", stopped)

        assert (chat.after(failed), chat.after(stopped)) == ([], [])
        assert await states(database_url) == []
        assert diarist.begun == []


async def test_the_next_message_neither_waits_for_the_work_nor_stops_it(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    diarist = Diarist(gate)
    model.reply("One")
    model.reply("Two")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        first = await chat.say("1")
        await chat.until("4 started", first)
        second = await chat.say("2")

        assert (diarist.begun, diarist.cancelled) == ([first], [])
        gate.set()
        await chat.until("post_response_complete", second)
        assert (chat.after(first), chat.after(second)) == (WHOLE, WHOLE)
        chat.assert_gapless()
        await assert_at_rest(database_url, services)


async def test_the_work_of_a_session_is_done_in_the_order_of_its_replies(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    diarist = Diarist(gate)
    for text in ("One", "Two", "Three"):
        model.reply(text)
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        runs = [await chat.say(text) for text in ("1", "2", "3")]
        assert await states(database_url) == ["working", "waiting", "waiting"]
        gate.set()
        await chat.until("post_response_complete", runs[2])

        assert diarist.begun == diarist.done == runs
        ends = [frame.run_id for frame in chat.frames if frame.type == "post_response_complete"]
        assert ends == runs
        await assert_at_rest(database_url, services)


async def test_sessions_do_not_wait_for_each_other(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    model.reply("One")
    model.reply("Two")
    async with (
        open_replica(database_url, model, Diarist(gate)) as services,
        chatting(services) as (slow,),
        chatting(services) as (quick,),
    ):
        held = await slow.say("1")
        await slow.until("4 started", held)
        await quick.say("2", until="post_response_complete")

        gate.set()
        await slow.until("post_response_complete", held)


async def test_a_session_can_be_deleted_under_the_work(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        await services.sessions.delete(LOCAL_OWNER, chat.session_id, version=None)

        await eventually(lambda: diarist.cancelled == [run_id])
        await assert_at_rest(database_url, services)


# --- failures ------------------------------------------------------------------------------------------------------


async def test_work_that_fails_is_complete_without_an_error_of_the_run(
    database_url: str, model: OpenAIFake, caplog: pytest.LogCaptureFixture
):
    diarist = Diarist(ValueError("the diary is full"))
    model.reply("One")
    model.reply("Two")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        failed = await chat.say("1", until="post_response_complete")
        second = await chat.say("2", until="post_response_complete")

        assert chat.after(failed) == ["4 started", "4 finished", "post_response_complete"]
        assert body_of(chat.frames, "post_response_complete")["modules"] == []
        assert chat.after(second) == WHOLE
        assert "the diary is full" in caplog.text
        await assert_at_rest(database_url, services)


async def test_work_that_the_database_broke_off_is_begun_anew(database_url: str, model: OpenAIFake):
    diarist = Diarist(DatabaseUnavailable("gone"))
    model.reply("One")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        run_id = await chat.say("1", until="post_response_complete")

        assert (diarist.begun, diarist.done) == ([run_id, run_id], [run_id])
        assert chat.after(run_id) == WHOLE
        chat.assert_gapless()


async def test_work_that_takes_too_long_is_ended(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    timeouts = {"lease": 1.0, "run": 3.0}
    async with (
        open_replica(database_url, model, diarist, timeouts=timeouts) as services,
        chatting(services) as (chat,),
    ):
        run_id = await chat.say("1", until="post_response_complete")

        assert chat.after(run_id) == ["4 started", "4 finished", "post_response_complete"]
        assert diarist.cancelled == [run_id]


@pytest.mark.parametrize("marker", [b'"stage":4', b"post_response_complete"])
async def test_a_commit_that_was_not_answered_happens_once(database_url: str, model: OpenAIFake, marker: bytes):
    gate = asyncio.Event()
    diarist = Diarist(gate)
    model.reply("One")
    async with (
        proxied(database_url) as (url, proxy),
        open_replica(url, model, diarist, timeouts={"lease": 5.0}) as services,
        chatting(services) as (chat,),
    ):
        proxy.swallow_next_answer_to = marker
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        gate.set()
        await chat.until("post_response_complete", run_id)

        assert proxy.swallowed == 1
        assert chat.after(run_id) == WHOLE
        chat.assert_gapless()
        await assert_at_rest(database_url, services)


# --- owners come and go --------------------------------------------------------------------------------------------


async def test_work_of_an_owner_that_died_is_done_by_another_and_told_once(database_url: str, model: OpenAIFake):
    model.reply("One")
    model.reply("Two")
    left, heir = Diarist(asyncio.Event()), Diarist()
    async with (
        open_replica(database_url, model, left) as first,
        open_replica(database_url, model, heir) as second,
        chatting(first, second) as (near, far),
    ):
        runs = [await near.say("1")]
        await near.until("4 started", runs[0])
        runs.append(await near.say("2"))
        await die(first)
        await far.until("post_response_complete", runs[1])

        assert left.done == []
        assert heir.done == runs
        assert [far.after(run_id) for run_id in runs] == [WHOLE, WHOLE]
        far.assert_gapless()
        await assert_at_rest(database_url, second)


async def test_an_owner_that_lost_the_work_stops_without_a_word(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    async with (
        open_replica(database_url, model, diarist) as services,
        chatting(services) as (chat,),
        store(database_url, lease_seconds=60) as other,
    ):
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        [taken] = await other.take_over(ReplicaId(new_id()), besides=[], limit=10, at_once=True)

        await eventually(lambda: diarist.cancelled == [run_id])
        first_seq = await other.write(taken, [NewEvent("post_response_complete", "{}")], "done")
        assert first_seq == chat.frames[-1].seq + 1


async def test_a_process_that_goes_down_leaves_the_work_to_the_next(database_url: str, model: OpenAIFake):
    model.reply("One")
    model.reply("Two")
    left, heir = Diarist(asyncio.Event()), Diarist()
    timeouts = {"lease": 60.0, "drain": 1.0}
    async with (
        open_replica(database_url, model, left, timeouts=timeouts) as services,
        chatting(services) as (chat,),
    ):
        runs = [await chat.say("1")]
        await chat.until("4 started", runs[0])
        runs.append(await chat.say("2"))
        await services.engine.drain(1)

        assert left.cancelled == [runs[0]]
        assert await states(database_url) == ["waiting", "waiting"]
        assert (chat.after(runs[0]), chat.after(runs[1])) == (["4 started"], [])
    # Another replica may be at work on the database, but what was given back is nobody's.
    async with open_replica(database_url, model, heir, timeouts=timeouts) as services:
        async with services.chat.attach(LOCAL_OWNER, chat.session_id, after=0) as attachment:
            again = Chat(services, chat.session_id, attachment)
            await again.until("post_response_complete", runs[1])
        assert heir.begun == runs
        assert [again.after(run_id) for run_id in runs] == [WHOLE, WHOLE]
        again.assert_gapless()
        await assert_at_rest(database_url, services)


async def test_a_service_that_is_alone_takes_up_at_once_what_a_crash_left(database_url: str, model: OpenAIFake):
    model.reply("One")
    heir = Diarist()
    timeouts = {"lease": 60.0, "drain": 1.0}
    async with (
        open_replica(database_url, model, Diarist(asyncio.Event()), timeouts=timeouts) as services,
        chatting(services) as (chat,),
    ):
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        await die(services)
    assert await states(database_url) == ["working"]
    async with open_replica(database_url, model, heir, timeouts=timeouts, is_alone=True) as services:
        await eventually(lambda: heir.done == [run_id])
        await assert_at_rest(database_url, services)


async def test_work_that_was_begun_too_often_is_given_up(database_url: str, model: OpenAIFake):
    model.reply("One")
    heir = Diarist()
    async with open_replica(database_url, model, Diarist(asyncio.Event())) as services, chatting(services) as (chat,):
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        await services.engine.drain(1)
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE post_responses SET fence = 1000")
    await connection.close()
    async with open_replica(database_url, model, heir) as services:
        async with services.chat.attach(LOCAL_OWNER, chat.session_id, after=0) as attachment:
            again = Chat(services, chat.session_id, attachment)
            await again.until("post_response_complete", run_id)
        assert again.after(run_id) == ["4 started", "4 finished", "post_response_complete"]
        assert heir.begun == []


# --- the fence -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def store(database_url: str, *, lease_seconds: float):
    """The rows of the work, without anybody who works."""
    database = await Database.connect(database_url, size=4)
    try:
        yield PostResponseStore(database, lease_seconds=lease_seconds)
    finally:
        await database.close()


@asynccontextmanager
async def asleep(database_url: str, model: OpenAIFake):
    """A claim whose owner does nothing any more, and the store."""
    model.reply("One")
    async with (
        open_replica(database_url, model, Diarist(asyncio.Event()), timeouts={"lease": 60.0}) as services,
        chatting(services) as (chat,),
        store(database_url, lease_seconds=60) as rows,
    ):
        await chat.until("4 started", await chat.say("1"))
        [work] = services.afterwork.working
        yield work.claimed, rows


async def bodies(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT body FROM events ORDER BY seq")
    await connection.close()
    return [row["body"] for row in rows]


LATE, FRESH = [NewEvent("stage_update", '{"late":1}')], [NewEvent("post_response_complete", '{"fresh":1}')]


async def take(rows: PostResponseStore) -> PostClaim:
    [taken] = await rows.take_over(ReplicaId(new_id()), besides=[], limit=10, at_once=True)
    return taken


async def test_a_sleeper_cannot_write_after_its_work_was_taken(database_url: str, model: OpenAIFake):
    async with asleep(database_url, model) as (sleeper, rows):
        taken = await take(rows)
        assert (taken.run.id, taken.shown_to) == (sleeper.run.id, sleeper.shown_to)

        assert await rows.write(sleeper, LATE, "stages") is None
        assert await rows.write(sleeper, LATE, "done") is None
        assert await rows.renew([sleeper]) == {}
        await rows.give_back(sleeper)
        assert await rows.write(taken, FRESH, "done") is not None
        assert LATE[0].body not in await bodies(database_url)
        assert (await bodies(database_url))[-1] == FRESH[0].body
        assert await states(database_url) == ["done"]


async def test_a_sleeper_that_waits_for_the_journal_is_refused_if_it_was_replaced_meanwhile(
    database_url: str, model: OpenAIFake
):
    async with asleep(database_url, model) as (sleeper, rows):
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("SELECT FROM journals FOR UPDATE")
            late = asyncio.create_task(rows.write(sleeper, LATE, "stages"))
            await eventually(lambda: somebody_waits(connection))
            taken = await take(rows)
        assert await late is None
        assert await rows.write(taken, FRESH, "stages") is not None
        assert LATE[0].body not in await bodies(database_url)
        await connection.close()


async def test_work_that_waits_for_the_journal_is_told_after_what_was_written_meanwhile(
    database_url: str, model: OpenAIFake
):
    async with asleep(database_url, model) as (owner, rows):
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            last_seq = await connection.fetchval("UPDATE journals SET last_seq = last_seq + 3 RETURNING last_seq")
            soon = asyncio.create_task(rows.write(owner, LATE, "stages"))
            await eventually(lambda: somebody_waits(connection))
        assert await soon == last_seq + 1
        await connection.close()


async def somebody_waits(connection: asyncpg.Connection) -> bool:
    """Whether another connection to this database waits for a lock."""
    return await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


async def test_work_is_claimed_only_when_nothing_before_it_is_unfinished(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    model.reply("One")
    model.reply("Two")
    async with (
        open_replica(database_url, model, Diarist(gate)) as services,
        chatting(services) as (chat,),
        store(database_url, lease_seconds=60) as rows,
    ):
        first = await chat.say("1")
        await chat.until("4 started", first)
        await chat.say("2")
        assert await rows.claim_next(chat.session_id, ReplicaId(new_id())) is None
        assert await rows.take_over(ReplicaId(new_id()), besides=[], limit=10) == []


# --- stopping it ---------------------------------------------------------------------------------------------------


async def test_an_interrupt_stops_the_work_and_nothing_follows(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    model.reply("Two")
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        stopped = await chat.say("1")
        await chat.until("4 started", stopped)
        assert await chat.interrupt(stopped) == stopped
        await chat.until("interrupted", stopped)
        second = await chat.say("2", until="post_response_complete")

        assert diarist.cancelled == [stopped]
        assert chat.after(stopped) == ["4 started", "interrupted"]
        told = body_of(chat.frames, "interrupted")
        assert (told["phase"], told["by"]) == ("post_response", "user")
        assert chat.after(second) == WHOLE
        with pytest.raises(NothingRunning):
            await chat.interrupt(stopped)
        await assert_at_rest(database_url, services)


async def test_work_that_is_done_here_is_stopped_while_the_database_is_away(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    async with (
        proxied(database_url) as (url, proxy),
        open_replica(url, model, diarist) as services,
        chatting(services) as (chat,),
    ):
        run_id = await chat.say("1")
        await chat.until("4 started", run_id)
        proxy.is_open = False
        proxy.cut()
        await chat.interrupt(run_id)
        await eventually(lambda: diarist.cancelled == [run_id])
        proxy.is_open = True
        await chat.until("interrupted", run_id)

        assert chat.after(run_id) == ["4 started", "interrupted"]


async def test_an_interrupt_on_another_replica_stops_the_work(database_url: str, model: OpenAIFake):
    diarist = Diarist(asyncio.Event())
    model.reply("One")
    # With such a lease nobody looks for a long time: it is the notification that stops it.
    timeouts = {"lease": 60.0, "drain": 1.0}
    async with (
        open_replica(database_url, model, diarist, timeouts=timeouts) as first,
        open_replica(database_url, model, Diarist(), timeouts=timeouts) as second,
        chatting(first, second) as (near, far),
    ):
        run_id = await near.say("1")
        await near.until("4 started", run_id)
        assert await far.interrupt() == run_id
        await near.until("interrupted", run_id)

        assert near.after(run_id) == ["4 started", "interrupted"]
        assert diarist.cancelled == [run_id]
        await assert_at_rest(database_url, first, second)


async def test_an_interrupt_without_a_name_stops_the_reply_before_the_work(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    diarist = Diarist(gate)
    model.reply("One")
    model.script(Text("Well"), Hang())
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        first = await chat.say("1")
        await chat.until("4 started", first)
        second = await chat.say("2", until="text_delta")
        assert await chat.interrupt() == second
        await chat.until("assistant_end", second)

        assert diarist.cancelled == []
        gate.set()
        await chat.until("post_response_complete", first)


async def test_an_interrupt_without_a_name_ends_the_newest_work_though_it_only_waits(
    database_url: str, model: OpenAIFake
):
    gate = asyncio.Event()
    diarist = Diarist(gate)
    for text in ("One", "Two", "Three"):
        model.reply(text)
    async with open_replica(database_url, model, diarist) as services, chatting(services) as (chat,):
        first, second = [await chat.say(text) for text in ("1", "2")]
        assert await chat.interrupt() == second
        await chat.until("interrupted", second)
        assert chat.after(second) == ["interrupted"]
        gate.set()
        third = await chat.say("3", until="post_response_complete")

        assert diarist.done == [first, third]
        await assert_at_rest(database_url, services)


async def test_with_nothing_left_to_stop_an_interrupt_says_so(database_url: str, model: OpenAIFake):
    model.reply("One")
    async with open_replica(database_url, model, Diarist()) as services, chatting(services) as (chat,):
        run_id = await chat.say("1", until="post_response_complete")
        for named in (None, run_id):
            with pytest.raises(NothingRunning):
                await chat.interrupt(named)


async def test_a_reader_without_a_position_begins_with_what_comes(database_url: str, model: OpenAIFake):
    gate = asyncio.Event()
    model.reply("One")
    async with open_replica(database_url, model, Diarist(gate)) as services, chatting(services) as (chat,):
        await chat.until("4 started", await chat.say("1"))
        async with services.chat.attach(LOCAL_OWNER, chat.session_id) as attachment:
            gate.set()
            frames = await read_until(attachment, "post_response_complete")
        assert [_in_short(frame) for frame in frames] == WHOLE[1:]
