"""Opening sockets where there are accounts: who is let in, with what, and what anybody else gets to know."""

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from services.accounts.api_keys import new_key
from tests.fakes.script import Hang, Text
from tests.integration.accounts.conftest import STRANGERS, Replicas, Visitor, bearer_header
from tests.integration.sockets.client import Client, DialectSocket, Socket, client_of
from tests.waiting import eventually

# --- with the handshake ---------------------------------------------------------------------------------------------


async def test_a_program_shows_a_token_or_a_key_with_the_handshake(ada: Visitor):
    session_id = await ada.session()
    for shown in (ada.account.access_token, await ada.key("read", "chat")):
        for header in (f"Bearer {shown}", f"bearer  {shown} "):
            socket = await ada.open(session_id, additional_headers={"Authorization": header})
            assert socket.seen[0]["session_id"] == session_id
        await ada.multiplexed(additional_headers=bearer_header(shown))


async def test_a_wrong_header_is_refused_at_once_and_no_frame_is_waited_for(ada: Visitor):
    session_id = await ada.session()
    ticket = await ada.ticket(session_id)
    token = ada.account.access_token
    for header in ("Bearer", "Bearer ", f"Basic {token}", token, f"Bearer {token}x", f"Bearer {new_key()}"):
        for path in (f"/ws/chat/{session_id}", "/ws/chat"):
            raw = await ada.connect(path, additional_headers={"Authorization": header})
            assert (await Socket(raw, _anything).closed())[0] == 4401, header
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    raw = await ada.connect(f"/ws/chat/{session_id}", additional_headers=twice)
    assert (await Socket(raw, _anything).closed())[0] == 4401
    assert await _let_in(ada, f"/ws/chat/{session_id}", ticket=ticket)


# --- in the first frame ---------------------------------------------------------------------------------------------


async def test_a_page_says_who_it_is_in_the_first_frame(ada: Visitor):
    session_id = await ada.session()
    for proof in (
        {"ticket": await ada.ticket(session_id)},
        {"token": ada.account.access_token},
        {"token": await ada.key("read")},
    ):
        socket = await _let_in(ada, f"/ws/chat/{session_id}", **proof)
        assert socket.seen[0]["session_id"] == session_id
        assert await socket.answered() == []


async def test_in_the_dialect_of_many_chats_it_stands_in_the_envelope(ada: Visitor, replicas: Replicas):
    replicas.model.reply("Hello.")
    for proof in ({"ticket": await ada.ticket()}, {"token": ada.account.access_token}):
        socket = DialectSocket(await ada.connect("/ws/chat"), _anything)
        await socket.send("authenticate", data=proof)
        await socket.expect("session_start")
    chat = await socket.chat("Hi")
    assert (await socket.of_chat(chat["chat_session_id"]))[-1]["type"] == "post_response_complete"


async def test_frames_right_behind_the_first_are_taken_in_order(ada: Visitor, replicas: Replicas):
    session_id = await ada.session()
    replicas.model.reply("Hello.")
    socket = await ada.knock(f"/ws/chat/{session_id}")
    await socket.send("authenticate", token=ada.account.access_token)
    await socket.send("ping", nonce="before")
    await socket.connection.send("not json")
    await socket.say("Hi")
    assert [frame["type"] for frame in await socket.until("error")] == ["session_start", "pong", "error"]
    await socket.expect("assistant_end", finish_reason="stop")


async def test_saying_it_again_later_changes_nothing(ada: Visitor, ben: Visitor):
    session_id = await ada.session()
    ticket = await ben.ticket()
    for socket in (
        await ada.open_with(session_id),
        await _let_in(ada, f"/ws/chat/{session_id}", token=ada.account.access_token),
    ):
        for proof in ({"token": ben.account.access_token}, {"ticket": ticket}):
            await socket.send("authenticate", **proof)
            assert (await socket.refused("invalid_request"))["details"]["field"] == "type"
    dialect = await ada.multiplexed(additional_headers=ada.account.headers)
    await dialect.send("authenticate", data={"ticket": ticket})
    assert (await dialect.expect("error"))["data"]["code"] == "invalid_request"
    assert await _let_in(ben, "/ws/chat", ticket=ticket), "it was not used up"


_TOO_LONG = "x" * 9000


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"type":"authenticate","token":"x"}', 4400),
        (b"", 4400),
        ("", 4400),
        ("not json", 4400),
        ("[]", 4400),
        ("null", 4400),
        ('"authenticate"', 4400),
        ("{}", 4400),
        ('{"type":"authenticate"}', 4400),
        ('{"type":"authenticate","token":"x","ticket":"x"}', 4400),
        ('{"type":"authenticate","token":null,"ticket":null}', 4400),
        ('{"type":"authenticate","token":["x"]}', 4400),
        ('{"type":"authenticate","token":"x","surprise":1}', 4400),
        ('{"type":"authenticate","data":{"token":"x"}}', 4400),
        ('{"type":"surprise"}', 4400),
        ("[" * 5000, 4400),
        ('{"type":"ping"}', 4401),
        ('{"type":"message","content":"Hi"}', 4401),
        ('{"type":"interrupt"}', 4401),
        ('{"type":"authenticate","token":""}', 4401),
        ('{"type":"authenticate","ticket":""}', 4401),
        ('{"type":"authenticate","token":"x"}', 4401),
        ('{"type":"authenticate","token":"\\u0000"}', 4401),
        ('{"type":"authenticate","token":"clq_ü"}', 4401),
        ('{"type":"authenticate","ticket":"' + "x" * 43 + '"}', 4401),
        ('{"type":"message","content":"' + _TOO_LONG + '"}', 4413),
        ('{"type":"message","content":"' + "x" * 70_000 + '"}', 4413),
    ],
)
async def test_any_other_first_frame_closes_the_socket(ada: Visitor, frame: str | bytes, code: int):
    session_id = await ada.session()
    socket = await ada.knock(f"/ws/chat/{session_id}")
    await socket.connection.send(frame)
    closed = await socket.closed()
    assert closed[0] == code
    assert socket.seen == [], "nothing is told"
    assert "x" * 40 not in closed[1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
async def test_whatever_comes_first_nothing_is_told(replicas: Replicas, frame: str | bytes):
    async with AsyncExitStack() as stack:
        client = Client(replicas.first, stack, None)  # pyright: ignore[reportArgumentType] - asks nothing over REST
        socket = Socket(await client.connect(f"/ws/chat/{uuid4()}"), _anything)
        try:
            await socket.connection.send(frame)
        except UnicodeEncodeError:
            return
        code, _ = await socket.closed()
        assert code in (4400, 4401)
        assert socket.seen == []


# --- tickets --------------------------------------------------------------------------------------------------------


async def test_a_ticket_opens_one_socket_on_whichever_replica(ada: Visitor, replicas: Replicas):
    session_id = await ada.session()
    for first, then in ((replicas.first, replicas.second), (replicas.second, replicas.first)):
        ticket = await ada.ticket(session_id)
        assert await _let_in(ada.at(first), f"/ws/chat/{session_id}", ticket=ticket)
        for url in (first, then):
            assert await _refused(ada.at(url), f"/ws/chat/{session_id}", ticket=ticket) == 4401


async def test_of_many_who_show_a_ticket_at_once_one_is_let_in(ada: Visitor, replicas: Replicas):
    session_id = await ada.session()
    ticket = await ada.ticket(session_id)
    path = f"/ws/chat/{session_id}"
    sockets = [await ada.knock(path) for _ in range(6)]
    await asyncio.gather(*(socket.send("authenticate", ticket=ticket) for socket in sockets))
    starts = await asyncio.gather(*(_start_of(socket) for socket in sockets))
    assert sum(start is not None for start in starts) == 1


async def test_a_ticket_is_for_the_socket_that_it_was_got_for(ada: Visitor, ben: Visitor):
    mine, other, bens = await ada.session(), await ada.session(), await ben.session()
    for got_for, shown_at in ((mine, f"/ws/chat/{other}"), (mine, "/ws/chat"), (None, f"/ws/chat/{mine}")):
        assert await _refused(ada, shown_at, ticket=await ada.ticket(got_for)) == 4401
    assert await _refused(ben, f"/ws/chat/{bens}", ticket=await ada.ticket(mine)) == 4401
    answer = await ada.http.post("/api/auth/ws-ticket", json={"session_id": bens})
    assert answer.status_code == 404
    assert await _refused(ada, f"/ws/chat/{bens}", ticket=await ada.ticket()) == 4401


async def test_a_ticket_got_by_a_key_allows_what_the_key_does(ada: Visitor):
    session_id = await ada.session()
    key = await ada.key("read")
    answer = await ada.http.post("/api/auth/ws-ticket", json={"session_id": session_id}, headers=bearer_header(key))
    socket = await _let_in(ada, f"/ws/chat/{session_id}", ticket=answer.json()["ticket"])
    await socket.say("Hi")
    await socket.refused("insufficient_scope")


# --- what nobody gets to know ---------------------------------------------------------------------------------------


async def test_who_does_not_say_who_they_are_does_not_learn_what_exists(ada: Visitor):
    session_id = await ada.session()
    answers = set[tuple[int, str]]()
    for path in (f"/ws/chat/{session_id}", f"/ws/chat/{uuid4()}"):
        socket = await ada.knock(path)
        await socket.send("authenticate", token="wrong")
        answers.add(await socket.closed())
    assert len(answers) == 1


async def test_somebody_elses_session_looks_like_one_that_does_not_exist(ada: Visitor, ben: Visitor):
    bens = await ben.session()
    for query in ("", "?after=0"):
        answers = set[tuple[int, str]]()
        for session_id in (bens, str(uuid4())):
            socket = await ada.knock(f"/ws/chat/{session_id}{query}", additional_headers=ada.account.headers)
            answers.add(await socket.closed())
            by_frame = await ada.knock(f"/ws/chat/{session_id}{query}")
            await by_frame.send("authenticate", token=ada.account.access_token)
            answers.add(await by_frame.closed())
        assert {code for code, _ in answers} == {4404}
        assert len(answers) == 1


async def test_on_the_socket_of_many_chats_nobody_reaches_what_is_somebody_elses(ada: Visitor, ben: Visitor):
    bens = await ben.session()
    socket = await ada.multiplexed(additional_headers=ada.account.headers)
    await socket.send("chat", data={"message": "Hi", "conversation_id": bens})
    assert (await socket.expect("error"))["data"]["code"] == "not_found"
    assert await ben.said(bens) == []


async def test_a_foreign_page_is_refused_before_its_ticket_is_looked_at(ada: Visitor):
    session_id = await ada.session()
    ticket = await ada.ticket(session_id)
    raw = await ada.connect(f"/ws/chat/{session_id}", additional_headers={"Origin": "https://evil.example"})
    with_token = {"Origin": "https://evil.example", **ada.account.headers}
    assert (await Socket(raw, _anything).closed())[0] == 4403
    assert (await (await ada.knock(f"/ws/chat/{session_id}", additional_headers=with_token)).closed())[0] == 4403
    assert await _let_in(ada, f"/ws/chat/{session_id}", ticket=ticket)


async def test_no_secret_that_was_shown_is_logged(ada: Visitor, caplog: pytest.LogCaptureFixture):
    session_id = await ada.session()
    key, ticket = await ada.key("read"), await ada.ticket(session_id)
    token = ada.account.access_token
    path = f"/ws/chat/{session_id}"
    with caplog.at_level(logging.DEBUG, logger="uvicorn"), caplog.at_level(logging.DEBUG, logger="api"):
        logging.getLogger("websocket").setLevel(logging.DEBUG)
        for shown in (token, key):
            await ada.open_with(session_id, shown)
            await _let_in(ada, path, token=shown)
            await _refused(ada, path, token=shown + "x")
            await _refused(ada, path, ticket=shown)
        await _let_in(ada, path, ticket=ticket)
        await _refused(ada, path, ticket=ticket)
    logging.getLogger("websocket").setLevel(logging.NOTSET)
    said = "\n".join(
        f"{record.getMessage()} {record.__dict__}"
        for record in caplog.records
        if not record.name.startswith("websockets.client")
    )
    for secret in (token, key, ticket):
        assert secret not in said
        assert secret[10:40] not in said


# --- how long and how many ------------------------------------------------------------------------------------------


async def test_who_says_nothing_is_closed_with_4408(ada: Visitor, replicas: Replicas):
    for path in (f"/ws/chat/{await ada.session()}", "/ws/chat"):
        socket = await ada.at(replicas.second).knock(path)
        assert (await socket.closed())[0] == 4408


async def test_so_many_strangers_may_wait_and_each_makes_room_when_it_is_known(ada: Visitor):
    session_id = await ada.session()
    path, token = f"/ws/chat/{session_id}", ada.account.access_token
    waiting = [await ada.knock(path) for _ in range(STRANGERS)]
    assert (await (await ada.knock(path)).closed())[0] == 4429
    assert (await (await ada.knock("/ws/chat")).closed())[0] == 4429
    assert await ada.open_with(session_id), "who says it with the handshake does not wait"
    await waiting[0].send("authenticate", token=token)
    await waiting[0].expect("session_start")
    await waiting[1].send("authenticate", token="wrong")
    assert (await waiting[1].closed())[0] == 4401
    for _ in range(2):
        assert await _let_in(ada, path, token=token)
    await asyncio.gather(*(socket.connection.close() for socket in waiting))


async def test_who_goes_away_without_a_word_leaves_nothing_behind(ada: Visitor):
    path = f"/ws/chat/{await ada.session()}"
    for _ in range(STRANGERS + 5):
        await (await ada.knock(path)).connection.close()

    async def there_is_room() -> bool:
        socket = await ada.knock(path)
        await socket.send("authenticate", token=ada.account.access_token)
        return await _start_of(socket) is not None

    await eventually(there_is_room)


# --- what is allowed ------------------------------------------------------------------------------------------------


async def test_a_key_that_may_only_read_sees_everything_and_changes_nothing(ada: Visitor, replicas: Replicas):
    session_id = await ada.session()
    reader = await ada.open_with(session_id, await ada.key("read"))
    replicas.model.script(Text("Hello "), Hang())
    writer = await ada.open_with(session_id)
    await writer.say("Hi")
    await reader.expect("text_delta")
    for type, fields in _DOINGS:
        await reader.send(type, **fields)
        await reader.refused("insufficient_scope")
    assert await reader.answered() == []
    await writer.send("interrupt")
    await reader.expect("assistant_end", finish_reason="interrupted")
    assert [role for role, _ in await ada.said(session_id)] == ["user", "assistant"]


_DOINGS: list[tuple[str, dict[str, Any]]] = [
    ("message", {"content": "Hi"}),
    ("regenerate", {"message_id": str(uuid4())}),
    ("interrupt", {}),
    ("interrupt", {"run_id": str(uuid4())}),
    ("approve", {"tool_call_id": "x", "decision": "approve"}),
]


async def test_the_same_holds_on_the_socket_of_many_chats(ada: Visitor):
    socket = await ada.multiplexed(additional_headers=bearer_header(await ada.key("read")))
    for frame in ({"type": "chat", "data": {"message": "Hi"}}, {"type": "cancel", "session_id": str(uuid4())}):
        await socket.connection.send(json.dumps(frame))
        assert (await socket.expect("error"))["data"]["code"] == "insufficient_scope"
    assert await socket.answered() == []
    assert (await ada.http.get("/api/sessions")).json()["items"] == []


async def test_a_key_that_may_not_read_does_not_get_in(ada: Visitor):
    session_id = await ada.session()
    key = await ada.key("chat", "write")
    for path in (f"/ws/chat/{session_id}", "/ws/chat"):
        socket = Socket(await ada.connect(path, additional_headers=bearer_header(key)), _anything)
        assert (await socket.closed())[0] == 4403


async def test_whatever_is_sent_is_noted_with_what_was_shown(
    ada: Visitor, replicas: Replicas, behind: asyncpg.Connection
):
    session_id = await ada.session()
    key = await ada.key("read", "chat")
    noted: list[str] = []

    async def newest() -> str:
        row = await behind.fetchrow(
            "select credential_id from runs where owner_id = $1 order by id desc limit 1", ada.user_id
        )
        assert row is not None
        return str(row["credential_id"])

    socket = await ada.open_with(session_id, key)
    replicas.model.reply("One.")
    events = await socket.reply("Hi")
    noted.append(await newest())
    replicas.model.reply("Two.")
    await socket.send("regenerate", message_id=events[0]["message_id"])
    await socket.expect("assistant_end", finish_reason="stop")
    noted.append(await newest())
    await socket.connection.close()
    for path, body in (("messages", {"content": "Hi"}), ("regenerate", {"message_id": events[0]["message_id"]})):
        replicas.model.reply("Three.")
        answer = await ada.http.post(f"/api/sessions/{session_id}/{path}", json=body, headers=bearer_header(key))
        assert answer.status_code == 200, answer.text
        noted.append(await newest())
    replicas.model.reply("Four.")
    dialect = await ada.multiplexed(additional_headers=bearer_header(key))
    chat = await dialect.chat("Hi")
    await dialect.of_chat(chat["chat_session_id"])
    noted.append(await newest())
    assert noted == [ada.keys[key]] * 5


async def test_where_there_are_no_accounts_nothing_needs_to_be_shown(service: str):
    async with client_of(service) as client:
        session_id = await client.session()
        socket = await client.open(session_id, additional_headers={"Authorization": "Bearer whatever"})
        await socket.send("authenticate", ticket="whatever")
        assert await socket.answered() == []
        dialect = await client.multiplexed()
        await dialect.send("authenticate", data={"token": "whatever"})
        assert await dialect.answered() == []
        await dialect.send("authenticate", data={"token": "whatever"})
        assert (await dialect.expect("error"))["data"]["code"] == "invalid_request"
        for path, body in (("ws-ticket", {}), ("api-keys", {"name": "x", "scopes": ["read"]})):
            answer = await client.http.post(f"/api/auth/{path}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, "accounts_are_off")


# --- in short -------------------------------------------------------------------------------------------------------


def _anything(_: str) -> None:
    return None


async def _let_in(client: Client, path: str, **proof: str) -> Socket:
    socket = Socket(await client.connect(path), _anything)
    frame = {"data": proof} if path == "/ws/chat" else proof
    await socket.send("authenticate", **frame)
    await socket.expect("session_start")
    return socket


async def _refused(client: Client, path: str, **proof: str) -> int:
    socket = Socket(await client.connect(path), _anything)
    frame = {"data": proof} if path == "/ws/chat" else proof
    await socket.send("authenticate", **frame)
    code, _ = await socket.closed()
    assert socket.seen == []
    return code


async def _start_of(socket: Socket) -> dict[str, Any] | None:
    try:
        return await socket.next()
    except ConnectionClosed:
        return None
