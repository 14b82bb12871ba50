"""A right that ends closes what it opened, on every replica, and leaves alone what others opened."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx2
import pytest

from tests.fakes.script import Endless, Hang, Text
from tests.integration.accounts.conftest import Replicas, Visitor, bearer_header, visitor
from tests.integration.auth.conftest import PASSWORD
from tests.integration.sockets.client import Socket
from tests.postgres_proxy import proxied
from tests.service import accounts_settings, running_service
from tests.waiting import eventually

PATIENCE = 15.0
"""Three times the promise: what is wrong here never comes, and the machine may be busy."""


class Everywhere:
    """Sockets and streams on both replicas that one right has opened."""

    def __init__(self, sockets: list[Socket], streams: list["asyncio.Task[None]"]) -> None:
        self.sockets = sockets
        self.streams = streams

    async def all_end(self, *codes: int) -> None:
        """Return when everything is closed, and the sockets with one of those codes, 4401 if none is named."""
        async with asyncio.timeout(PATIENCE):
            for socket in self.sockets:
                assert (await socket.closed())[0] in (codes or (4401,))
            await asyncio.gather(*self.streams)

    async def all_go_on(self) -> None:
        """Return when every socket has answered."""
        for socket in self.sockets:
            await socket.answered()
        assert not any(stream.done() for stream in self.streams)


@asynccontextmanager
async def open_everywhere(replicas: Replicas, person: Visitor, bearer: str) -> AsyncGenerator[Everywhere, None]:
    """All that can be opened with that token or key, at both replicas."""
    session_id = await person.session()
    headers = bearer_header(bearer)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as readers:
        sockets: list[Socket] = []
        streams: list[asyncio.Task[None]] = []
        for url in replicas:
            there = person.at(url)
            sockets.append(await there.open(session_id, additional_headers=headers))
            sockets.append(await there.multiplexed(additional_headers=headers))
            answer = await person.http.post("/api/auth/ws-ticket", json={"session_id": session_id}, headers=headers)
            by_ticket = await there.knock(f"/ws/chat/{session_id}")
            await by_ticket.send("authenticate", ticket=answer.raise_for_status().json()["ticket"])
            await by_ticket.expect("session_start")
            sockets.append(by_ticket)
            http = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=60, headers=headers))
            response = await stack.enter_async_context(http.stream("GET", f"/api/sessions/{session_id}/events"))
            assert response.status_code == 200
            streams.append(readers.create_task(_read_to_the_end(response)))
        yield Everywhere(sockets, streams)
        for stream in streams:
            stream.cancel()


async def _read_to_the_end(response: httpx2.Response) -> None:
    async for _ in response.aiter_raw():
        pass


async def sign_out(person: Visitor) -> None:
    """Sign out of the sign-in at hand."""
    answer = await person.http.post("/api/auth/logout", json={})
    assert answer.status_code < 300, answer.text


async def test_signing_out_closes_what_the_sign_in_opened_and_nothing_else(
    replicas: Replicas, ada: Visitor, ben: Visitor, stack: AsyncExitStack
):
    elsewhere = await ada.again(replicas.first, stack)
    key = await ada.key("read", "chat")
    async with (
        open_everywhere(replicas, ada, ada.account.access_token) as ending,
        open_everywhere(replicas, elsewhere, elsewhere.account.access_token) as other_sign_in,
        open_everywhere(replicas, elsewhere, key) as by_key,
        open_everywhere(replicas, ben, ben.account.access_token) as bens,
    ):
        await sign_out(ada)
        await ending.all_end()
        for staying in (other_sign_in, by_key, bens):
            await staying.all_go_on()


async def test_deleting_a_key_closes_what_it_opened_and_nothing_else(replicas: Replicas, ada: Visitor):
    deleted, kept = await ada.key("read"), await ada.key("read")
    async with (
        open_everywhere(replicas, ada, deleted) as ending,
        open_everywhere(replicas, ada, kept) as staying,
    ):
        assert (await ada.http.delete(f"/api/auth/api-keys/{ada.keys[deleted]}")).status_code == 204
        await ending.all_end()
        await staying.all_go_on()
    again = await ada.http.get("/api/sessions", headers=bearer_header(deleted))
    assert again.status_code == 401


@pytest.mark.parametrize(
    ("ending", "codes"),
    [
        ("update api_keys set expires_at = now() where user_id = $1", (4401,)),
        ("update users set disabled_at = now() where id = $1", (4401,)),
        # It may be seen first that the session is gone.
        ("delete from users where id = $1", (4401, 4404)),
    ],
)
async def test_a_key_that_expires_and_a_user_who_is_disabled_or_deleted_are_seen_by_every_replica(
    replicas: Replicas, ada: Visitor, behind: asyncpg.Connection, ending: str, codes: tuple[int, ...]
):
    async with open_everywhere(replicas, ada, await ada.key("read")) as opened:
        await behind.execute(ending, ada.user_id)
        await opened.all_end(*codes)


async def test_it_is_seen_without_the_connections_on_which_replicas_hear_of_each_other(
    replicas: Replicas, ada: Visitor, behind: asyncpg.Connection
):
    async with open_everywhere(replicas, ada, ada.account.access_token) as ending:
        cut = """
            select count(pg_terminate_backend(pid)) from pg_stat_activity
            where query like 'LISTEN%' and datname = current_database()
        """
        assert await behind.fetchval(cut) >= 2
        await behind.execute("update sign_ins set revoked_at = now() where user_id = $1", ada.user_id)
        await ending.all_end()


async def test_another_password_ends_the_other_sign_ins(replicas: Replicas, ada: Visitor, stack: AsyncExitStack):
    elsewhere = await ada.again(replicas.first, stack)
    async with (
        open_everywhere(replicas, elsewhere, elsewhere.account.access_token) as ending,
        open_everywhere(replicas, ada, ada.account.access_token) as staying,
    ):
        change = {"current_password": PASSWORD, "new_password": f"{PASSWORD} again"}
        assert (await ada.http.post("/api/auth/me/password", json=change)).status_code == 204
        await ending.all_end()
        await staying.all_go_on()


async def test_a_reply_that_was_asked_for_at_one_replica_stops_when_its_right_ends_at_the_other(
    replicas: Replicas, ada: Visitor, behind: asyncpg.Connection, stack: AsyncExitStack
):
    for here, there in ((replicas.first, replicas.second), (replicas.second, replicas.first)):
        guest = await ada.again(here, stack)
        onlooker = await ada.again(replicas.first, stack)
        session_id = await onlooker.session()
        watching = await onlooker.open_with(session_id)
        replicas.model.script(Text("I am still "), Hang())
        socket = await guest.open_with(session_id)
        await socket.say("Hi")
        await watching.expect("text_delta")
        await socket.say("And then?", when_busy="queue")
        queued = (await watching.expect("message_accepted", queued=True))["run_id"]
        asked = len(replicas.model.requests)
        request = replicas.model.requests[-1]
        async with httpx2.AsyncClient(base_url=there, headers=guest.account.headers, timeout=20) as http:
            assert (await http.post("/api/auth/logout", json={})).status_code < 300
        assert (await socket.closed())[0] == 4401
        async with asyncio.timeout(PATIENCE):
            await request.closed
        assert request.ended_by == "client"

        async def all_is_over(session_id: str = session_id) -> bool:
            left = "select count(*) from runs where session_id = $1 and state <> 'finished'"
            return await behind.fetchval(left, session_id) == 0

        await eventually(all_is_over, PATIENCE)
        reasons = await behind.fetch("select finish_reason from runs where session_id = $1", session_id)
        assert {row["finish_reason"] for row in reasons} == {"interrupted"}
        told = [frame for frame in watching.seen + await watching.catch_up() if frame["type"] == "interrupted"]
        assert {frame["by"] for frame in told} == {"revoked"}
        assert queued in {frame["run_id"] for frame in told}
        assert len(replicas.model.requests) == asked, "what waited was never put to the model"
        assert [content for role, content in await onlooker.said(session_id) if role == "assistant"] == ["I am still "]


async def test_a_user_is_deleted_in_the_middle_of_many_replies_and_nothing_is_left(
    replicas: Replicas,
    ada: Visitor,
    behind: asyncpg.Connection,
    stack: AsyncExitStack,
    caplog: pytest.LogCaptureFixture,
):
    admin = await visitor(replicas.second, stack, "admin@example.org")
    sessions = [await ada.session(forget=False) for _ in range(6)]
    sockets: list[Socket] = []
    for session_id in sessions:
        replicas.model.script(Endless("word ", seconds=0.001))
        sockets.append(await ada.open_with(session_id))
        await sockets[-1].say("Hi")
        await sockets[-1].say("And then?", when_busy="queue")
        await sockets[-1].expect("text_delta")
    requests = list(replicas.model.requests)
    with caplog.at_level(logging.WARNING):
        answer = await admin.http.delete(f"/api/auth/users/{ada.user_id}")
        assert answer.status_code == 204, answer.text
        async with asyncio.timeout(PATIENCE):
            for socket in sockets:
                assert (await socket.closed())[0] in (4401, 4404)
            await asyncio.gather(*(request.closed for request in requests))
    assert len(replicas.model.requests) == len(requests)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    for table in ("events", "runs", "messages", "journals", "post_responses"):
        left = f"select count(*) from {table} where session_id = any ($1::uuid[])"
        assert await behind.fetchval(left, sessions) == 0, table
    assert (await ada.http.get("/api/sessions")).status_code == 401


async def test_who_waits_for_a_reply_over_rest_gets_what_there_is_of_it(replicas: Replicas, ada: Visitor):
    key = await ada.key("read", "chat")
    sessions = [await ada.session(), await ada.session()]
    for _ in sessions:
        replicas.model.script(Text("I am still "), Hang())
    async with httpx2.AsyncClient(base_url=replicas.first, headers=bearer_header(key), timeout=30) as http:
        message, streaming = {"content": "Hi"}, {"accept": "text/event-stream"}
        answers = [
            asyncio.create_task(http.post(f"/api/sessions/{session_id}/messages", json=message, headers=accept))
            for session_id, accept in zip(sessions, ({}, streaming), strict=True)
        ]
        await eventually(lambda: sum(request.sent > 0 for request in replicas.model.requests) == 2, PATIENCE)
        assert (await ada.http.delete(f"/api/auth/api-keys/{ada.keys[key]}")).status_code == 204
        whole, events = await asyncio.wait_for(asyncio.gather(*answers), PATIENCE)
    assert whole.status_code == 200
    assert whole.json()["finish_reason"] == "interrupted"
    assert whole.json()["message"]["content"] == "I am still "
    assert events.status_code == 200
    for session_id in sessions:
        assert (await ada.said(session_id))[-1] == ("assistant", "I am still ")


async def test_a_socket_outlives_the_token_that_opened_it(replicas: Replicas, ada: Visitor, stack: AsyncExitStack):
    brief = await ada.again(replicas.second, stack)
    session_id = await ada.session()
    socket = await brief.open_with(session_id)

    async def is_over() -> bool:
        return (await brief.http.get("/api/sessions")).status_code == 401

    await eventually(is_over, PATIENCE)
    await socket.answered()
    knocking = await brief.knock(f"/ws/chat/{session_id}", additional_headers=brief.account.headers)
    assert (await knocking.closed())[0] == 4401
    replicas.model.reply("Hello.")
    await socket.say("Hi")
    await socket.expect("assistant_end", finish_reason="stop")


async def test_an_outage_of_the_database_closes_nobodys_socket_and_is_caught_up_with(database_url: str):
    behind = await asyncpg.connect(database_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(behind.close)
        url, proxy = await stack.enter_async_context(proxied(database_url))
        base_url = await stack.enter_async_context(running_service(accounts_settings(), url))
        people = [await visitor(base_url, stack) for _ in range(2)]
        sockets = [await person.open_with(await person.session(forget=False)) for person in people]
        proxy.is_open = False
        proxy.cut()
        await behind.execute("update sign_ins set revoked_at = now() where user_id = $1", people[0].user_id)
        knocking = await people[1].knock("/ws/chat", additional_headers=people[1].account.headers)
        assert (await knocking.closed())[0] == 1013
        for socket in sockets:
            await socket.answered()
        proxy.is_open = True
        async with asyncio.timeout(PATIENCE):
            assert (await sockets[0].closed())[0] == 4401
        await sockets[1].answered()
