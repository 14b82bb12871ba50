"""A right that is taken away: what was begun by it ends, wherever it is done, and nothing else does."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from api.assembly import Services
from db.errors import DatabaseUnavailable
from db.ids import RunId, SessionId, new_id
from db.stores.accepting import WhenBusy
from services.accounts.caller import Caller, Credential
from services.accounts.revocation import Revocations
from services.inbox import Send
from services.runs.active import ActiveRun
from services.runs.afterwork import PostWork
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text
from tests.integration.accounts.conftest import Person, make_person
from tests.integration.conftest import SharedModel
from tests.integration.runs.conftest import open_replica
from tests.postgres import TestServer
from tests.postgres_proxy import proxied
from tests.waiting import eventually

PATIENCE = 15.0
"""Far more than the promise of five seconds: what is wrong here never comes, and the machine may be busy."""


class Reflection:
    """Work after replies that does not end by itself, where it is wanted."""

    def __init__(self) -> None:
        self.is_wanted = False
        self.begun: list[RunId] = []
        self.cancelled: list[RunId] = []

    def wants(self, run: ActiveRun) -> bool:
        return self.is_wanted

    async def respond(self, work: PostWork) -> Sequence[Mapping[str, Any]]:
        self.begun.append(work.record.id)
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append(work.record.id)
        return []


class World:
    """Two replicas on one database, and a look into it from behind."""

    def __init__(self, url: str, database: asyncpg.Connection, model: SharedModel, after: Reflection) -> None:
        self.url = url
        self.database = database
        self.model = model
        self.after = after
        self.replicas: list[Services] = []
        self.revocations: list[Revocations] = []

    async def open(self, stack: AsyncExitStack) -> None:
        services = await stack.enter_async_context(open_replica(self.url, self.model, self.after))
        self.replicas.append(services)
        self.revocations.append(await stack.enter_async_context(watched(services)))

    async def person(self) -> Person:
        return await make_person(self.database)

    async def session(self, person: Person) -> SessionId:
        """One more session."""
        session_id = SessionId(new_id())
        await self.database.execute("insert into sessions (id, owner_id) values ($1, $2)", session_id, person.id)
        await self.database.execute("insert into journals (session_id) values ($1)", session_id)
        return session_id

    async def key(self, person: Person) -> Caller:
        """The person, by a key of theirs."""
        key_id = new_id()
        await self.database.execute(
            """
            insert into api_keys (id, user_id, name, hash, last_four, scopes)
            values ($1, $2, 'a key', sha256(uuid_send($1)), 'xxxx', '{read,chat}')
            """,
            key_id,
            person.id,
        )
        return Caller(person.id, frozenset(("read", "chat")), Credential("api_key", key_id))

    async def run(self, run_id: RunId) -> asyncpg.Record:
        row = await self.database.fetchrow("select * from runs where id = $1", run_id)
        assert row is not None
        return row

    async def events(self, run_id: RunId) -> list[dict[str, Any]]:
        rows = await self.database.fetch("select type, body from events where run_id = $1 order by seq", run_id)
        return [orjson.loads(row["body"]) | {"type": row["type"]} for row in rows]

    def performed(self) -> set[RunId]:
        return {run.record.id for services in self.replicas for run in services.engine.performing}


@asynccontextmanager
async def watched(services: Services) -> AsyncGenerator[Revocations, None]:
    """The replica, with somebody who looks after rights: it has none where there are no accounts."""
    access = services.access
    revocations = Revocations(
        store=access.store,
        rights=access.rights,
        engine=services.engine,
        afterwork=services.afterwork,
        tickets=access.tickets,
        alarm=access.alarm,
        look_seconds=0.2,
    )
    async with revocations.running():
        yield revocations


@pytest.fixture(scope="module")
async def one_world(postgres: TestServer, migrated_template: str) -> AsyncGenerator[World, None]:
    """The replicas of all tests here."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(postgres.database(migrated_template))
        model = await stack.enter_async_context(SharedModel())
        world = World(url, await asyncpg.connect(url), model, Reflection())
        stack.push_async_callback(world.database.close)
        for _ in range(2):
            await world.open(stack)
        yield world


@pytest.fixture
async def world(one_world: World) -> AsyncGenerator[World, None]:
    """The replicas, with nothing left of the test before."""
    one_world.model.forget()
    one_world.after.is_wanted = False
    yield one_world
    await one_world.database.execute("delete from users where email is null and not is_admin")
    await eventually(lambda: not one_world.performed(), PATIENCE)


async def begun(
    services: Services, caller: Caller, session_id: SessionId, text: str = "Hi", when_busy: WhenBusy = "queue"
) -> RunId:
    """The run of a message that was sent by that right."""
    sent = Send([text], when_busy=when_busy, credential_id=caller.credential_id)
    return (await services.chat.send(caller.user_id, session_id, sent)).run.id


async def speaking(world: World, at: int, caller: Caller, session_id: SessionId) -> RunId:
    """A run that streams on one of the replicas and does not end by itself."""
    before = len(world.model.requests)
    world.model.script(Text("I am still "), Hang())
    run_id = await begun(world.replicas[at], caller, session_id)
    await eventually(lambda: len(world.model.requests) > before and world.model.requests[-1].sent > 0, PATIENCE)
    return run_id


SIGNED_OUT = "update sign_ins set revoked_at = now() where user_id = $1"


@pytest.mark.parametrize(
    "ending",
    [
        SIGNED_OUT,
        "update sign_ins set expires_at = now() where user_id = $1",
        "delete from sign_ins where user_id = $1",
        "update users set disabled_at = now() where id = $1",
    ],
)
async def test_what_runs_by_it_is_stopped_and_its_provider_is_left(world: World, ending: str):
    person = await world.person()
    run_id = await speaking(world, 0, person.caller, person.session_id)
    request = world.model.requests[-1]
    await world.database.execute(ending, person.id)
    async with asyncio.timeout(PATIENCE):
        await request.closed
    assert request.ended_by == "client"
    await eventually(lambda: run_id not in world.performed(), PATIENCE)
    run = await world.run(run_id)
    assert (run["state"], run["finish_reason"]) == ("finished", "interrupted")
    events = await world.events(run_id)
    assert [event["type"] for event in events[-2:]] == ["interrupted", "assistant_end"]
    assert events[-2]["by"] == "revoked"
    reply = await world.database.fetchrow(
        "select content, stopped_by from messages where run_id = $1 and role = 'assistant'", run_id
    )
    assert reply is not None
    assert tuple(reply) == ("I am still ", "revoked")


async def test_it_is_seen_though_nobody_is_told(world: World):
    person = await world.person()
    run_id = await speaking(world, 1, person.caller, person.session_id)
    await world.database.execute(SIGNED_OUT, person.id)
    await eventually(lambda: run_id not in world.performed(), PATIENCE)
    assert (await world.run(run_id))["finish_reason"] == "interrupted"


async def test_every_replica_looks_when_one_of_them_sounds_the_alarm(world: World):
    for here, there in ((0, 1), (1, 0)):
        person = await world.person()
        run_id = await speaking(world, there, person.caller, person.session_id)
        await world.database.execute(SIGNED_OUT, person.id)
        await world.replicas[here].access.alarm.sound()
        await eventually(lambda run_id=run_id: run_id not in world.performed(), PATIENCE)
        assert (await world.run(run_id))["finish_reason"] == "interrupted"


async def test_what_runs_by_another_right_goes_on(world: World):
    person = await world.person()
    key = await world.key(person)
    elsewhere = await world.session(person)
    ends = await speaking(world, 0, person.caller, person.session_id)
    stays = await speaking(world, 0, key, elsewhere)
    await world.database.execute(SIGNED_OUT, person.id)
    await eventually(lambda: ends not in world.performed(), PATIENCE)
    await world.revocations[0].look()
    assert stays in world.performed()
    assert (await world.run(stays))["state"] == "running"


async def test_what_waits_by_it_never_begins(world: World):
    person = await world.person()
    key = await world.key(person)
    first = await speaking(world, 0, person.caller, person.session_id)
    asked = len(world.model.requests)
    waiting = [await begun(world.replicas[n % 2], person.caller, person.session_id, f"more {n}") for n in range(3)]
    by_key = await begun(world.replicas[0], key, person.session_id, "by the key")
    world.model.reply("an answer")
    await world.database.execute(SIGNED_OUT, person.id)

    async def is_over() -> bool:
        return (await world.run(by_key))["state"] == "finished"

    await eventually(is_over, PATIENCE)
    for run_id in (first, *waiting):
        assert (await world.run(run_id))["finish_reason"] == "interrupted"
    assert (await world.run(by_key))["finish_reason"] == "stop"
    assert len(world.model.requests) == asked + 1, "only what the key asked for was put to the model"
    for run_id in waiting:
        assert [event["type"] for event in await world.events(run_id)] == [
            "message_accepted",
            "interrupted",
            "assistant_end",
        ]


async def test_a_key_that_was_deleted_stops_what_it_asked_for_and_what_it_steers_with(world: World):
    person = await world.person()
    key = await world.key(person)
    first = await speaking(world, 0, person.caller, person.session_id)
    steering = await begun(world.replicas[0], key, person.session_id, "in other words", "steer")
    elsewhere = await world.session(person)
    second = await speaking(world, 1, key, elsewhere)
    await world.database.execute("delete from api_keys where id = $1", key.credential_id)
    await eventually(lambda: second not in world.performed(), PATIENCE)

    async def is_cancelled() -> bool:
        return (await world.run(steering))["finish_reason"] == "interrupted"

    await eventually(is_cancelled, PATIENCE)
    assert first in world.performed()


async def test_a_disabled_user_is_stopped_whatever_they_showed(world: World):
    person = await world.person()
    without = Caller(person.id, person.caller.scopes)
    run_id = await speaking(world, 1, without, person.session_id)
    await world.revocations[1].look()
    assert run_id in world.performed()
    await world.database.execute("update users set disabled_at = now() where id = $1", person.id)
    await eventually(lambda: run_id not in world.performed(), PATIENCE)
    assert (await world.run(run_id))["finish_reason"] == "interrupted"


@pytest.mark.parametrize("at_work", ["speaking", "after"])
async def test_what_is_done_for_a_deleted_user_is_left_without_a_word(
    world: World, caplog: pytest.LogCaptureFixture, at_work: str
):
    person = await world.person()
    if at_work == "speaking":
        await speaking(world, 0, person.caller, person.session_id)
    else:
        world.after.is_wanted = True
        world.model.reply("an answer")
        run_id = await begun(world.replicas[0], person.caller, person.session_id)
        await eventually(lambda: run_id in world.after.begun, PATIENCE)
    request = world.model.requests[-1]
    with caplog.at_level(logging.WARNING):
        await world.database.execute("delete from users where id = $1", person.id)
        await eventually(lambda: not world.performed(), PATIENCE)
        await eventually(lambda: not world.replicas[0].afterwork.working, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await request.closed
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await world.database.fetchval("select count(*) from runs where owner_id = $1", person.id) == 0


async def test_the_work_after_replies_is_stopped_and_what_waits_of_it_is_not_begun(world: World):
    person = await world.person()
    world.after.is_wanted = True
    runs: list[RunId] = []
    for _ in range(2):
        world.model.reply("an answer")
        runs.append(await begun(world.replicas[0], person.caller, person.session_id))
    await eventually(lambda: runs[0] in world.after.begun, PATIENCE)

    async def both_have_replied() -> bool:
        return all([(await world.run(run_id))["state"] == "finished" for run_id in runs])

    await eventually(both_have_replied, PATIENCE)
    await world.database.execute(SIGNED_OUT, person.id)

    async def is_done() -> bool:
        left = "select count(*) from post_responses where owner_id = $1 and state <> 'done'"
        return await world.database.fetchval(left, person.id) == 0

    await eventually(is_done, PATIENCE)
    assert runs[0] in world.after.cancelled
    assert runs[1] not in world.after.begun
    for run_id in runs:
        last = (await world.events(run_id))[-1]
        assert (last["type"], last["phase"], last["by"]) == ("interrupted", "post_response", "revoked")


async def test_while_the_database_is_away_nothing_is_closed_and_afterwards_it_is_looked_at_once(
    database_url: str, model: OpenAIFake
):
    behind = await asyncpg.connect(database_url)
    ended: list[UUID] = []
    try:
        async with (
            proxied(database_url) as (url, proxy),
            open_replica(url, model) as services,
            watched(services) as revocations,
        ):
            person, other = await make_person(behind), await make_person(behind)
            rights = services.access.rights
            with (
                rights.used(person.caller, lambda: ended.append(person.id)),
                rights.used(other.caller, lambda: ended.append(other.id)),
            ):
                await revocations.look()
                proxy.is_open = False
                proxy.cut()
                await behind.execute(SIGNED_OUT, person.id)
                with pytest.raises(DatabaseUnavailable):
                    await revocations.look()
                assert ended == []
                proxy.is_open = True
                await eventually(lambda: ended == [person.id], PATIENCE)
    finally:
        await behind.close()


async def test_what_has_ended_by_itself_is_not_ended_again(world: World):
    person = await world.person()
    rights, ended = world.replicas[0].access.rights, list[str]()
    with rights.used(person.caller, lambda: ended.append("open")):
        with rights.used(person.caller, lambda: ended.append("closed before")):
            pass
        await world.database.execute(SIGNED_OUT, person.id)
        await eventually(lambda: ended, PATIENCE)
        await world.revocations[0].look()
    assert ended == ["open"]
    assert person.caller.credential_id not in rights.credential_ids
