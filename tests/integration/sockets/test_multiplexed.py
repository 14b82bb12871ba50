"""The `/ws/chat` dialect: many chats on one socket, and the same truth as on the other."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Cut, Hang, Status, Text, Thinking, Wait
from tests.integration.sockets.client import Client, DialectSocket, Event, is_uuid, text_of, types_of
from tests.integration.sockets.conftest import Stranger

ENDINGS = ("post_response_complete", "cancelled", "error")


@pytest.fixture
async def many(client: Client) -> DialectSocket:
    """A socket of the dialect."""
    return await client.multiplexed()


def content_of(frames: list[Event]) -> str:
    return "".join(frame["data"]["content"] for frame in frames if frame["type"] == "chunk")


def thinking_of(frames: list[Event]) -> str:
    return "".join(frame["data"]["thinking"] or "" for frame in frames if frame["type"] == "chunk")


def kinds(frames: list[Event]) -> list[str]:
    types = [frame["type"] for frame in frames]
    return [type for i, type in enumerate(types) if type != "chunk" or types[i - 1 : i] != [type]]


async def test_a_chat_is_told_in_the_order_of_the_dialect(client: Client, model: OpenAIFake, many: DialectSocket):
    assert many.seen == [{"type": "session_start", "data": {"session_id": many.seen[0]["data"]["session_id"]}}]
    assert is_uuid(many.seen[0]["data"]["session_id"])
    conversation = await client.session()
    model.script(Thinking("Hmm."), Text("Hel"), Text("lo"))
    start = await many.chat("Hi", conversation_id=conversation)
    assert set(start) == {"chat_session_id", "conversation_id", "seq"}
    assert start["conversation_id"] == conversation
    frames = await many.of_chat(start["chat_session_id"])
    assert kinds(frames) == [*["stage_update"] * 4, "chunk", "done", *["stage_update"] * 4, "post_response_complete"]
    assert (thinking_of(frames), content_of(frames)) == ("Hmm.", "Hello")
    assert all(set(frame) == {"type", "data"} for frame in many.seen)
    seqs = [start["seq"], *(frame["data"]["seq"] for frame in frames)]
    assert seqs == sorted(set(seqs))
    assert all(frame["data"]["done"] is False for frame in frames if frame["type"] == "chunk")
    stages = [frame["data"]["stage"] for frame in frames if frame["type"] == "stage_update"]
    assert stages == [1, 1, 2, 2, 4, 4, 5, 5]
    assert await client.said(conversation) == [("user", "Hi"), ("assistant", "Hello")]


async def test_both_sockets_tell_the_same(client: Client, model: OpenAIFake, many: DialectSocket):
    conversation = await client.session()
    socket = await client.open(conversation)
    model.script(Thinking("Hm "), Text("one "), Text("two"))
    start = await many.chat("Hi", conversation_id=conversation)
    frames = await many.of_chat(start["chat_session_id"])
    events = await socket.run()
    assert events[0]["run_id"] == start["chat_session_id"]
    assert content_of(frames) == text_of(events)
    assert thinking_of(frames) == text_of(events, "thinking_delta")
    by_seq = {event["seq"]: event for event in events}
    assert {by_seq[frame["data"]["seq"]]["type"] for frame in frames if frame["type"] == "done"} == {"assistant_end"}
    assert types_of(events)[0] == by_seq[start["seq"]]["type"]


async def test_a_chat_without_a_conversation_opens_one(client: Client, many: DialectSocket):
    persona = await client.persona(name="Greeter", template="Be kind.")
    start = await many.chat("Hi", persona_id=persona)
    await many.of_chat(start["chat_session_id"])
    session = (await client.http.get(f"/api/conversations/{start['conversation_id']}")).json()
    assert session["persona_id"] == persona
    assert [content for _, content in await client.said(start["conversation_id"])] == ["Hi", "Hello there."]
    again = await many.chat("More", conversation_id=start["conversation_id"])
    assert again["conversation_id"] == start["conversation_id"]
    await many.of_chat(again["chat_session_id"])  # or it would ask the model of the next test


async def test_two_chats_interleave_and_can_be_told_apart(client: Client, model: OpenAIFake, many: DialectSocket):
    gates = [asyncio.Event(), asyncio.Event()]
    model.script(Text("a1 "), Wait(gates[0]), Text("a2"))
    first = await many.chat("First")
    await many.expect("chunk")
    model.script(Text("b1 "), Wait(gates[1]), Text("b2"))
    second = await many.chat("Second")
    await many.expect("chunk")
    assert first["conversation_id"] != second["conversation_id"]
    gates[1].set()
    rest_of_second = await many.of_chat(second["chat_session_id"])
    gates[0].set()
    rest_of_first = await many.of_chat(first["chat_session_id"])
    assert (content_of(rest_of_first), content_of(rest_of_second)) == ("a2", "b2")
    for chat, text in ((first, "a1 a2"), (second, "b1 b2")):
        frames = [frame for frame in many.seen if frame["data"].get("chat_session_id") == chat["chat_session_id"]]
        assert content_of(frames) == text
        assert kinds(frames).count("done") == 1


async def test_cancel_ends_a_chat_with_one_cancelled_and_no_done(
    client: Client, model: OpenAIFake, many: DialectSocket
):
    model.script(Text("Once upon"), Hang())
    start = await many.chat("Tell me")
    await many.expect("chunk")
    for _ in range(3):
        await many.send("cancel", session_id=start["chat_session_id"])
    frames = await many.of_chat(start["chat_session_id"], last=["cancelled"])
    assert frames[-1]["data"]["phase"] == "streaming"
    await many.send("cancel", session_id=start["chat_session_id"])
    assert await many.answered() == []
    assert "done" not in kinds(many.seen)
    assert kinds(many.seen).count("cancelled") == 1
    assert (await client.said(start["conversation_id"]))[1] == ("assistant", "Once upon")
    request = await model.request()
    async with asyncio.timeout(5):
        await request.closed
    assert request.ended_by == "client"


async def test_a_cancelled_chat_leaves_the_other_alone(model: OpenAIFake, many: DialectSocket):
    go_on = asyncio.Event()
    model.script(Text("a1 "), Wait(go_on), Text("a2"))
    first = await many.chat("First")
    await many.expect("chunk")
    model.script(Text("b1"), Hang())
    second = await many.chat("Second")
    await many.expect("chunk")
    await many.send("cancel", session_id=second["chat_session_id"])
    await many.of_chat(second["chat_session_id"], last=["cancelled"])
    go_on.set()
    assert "done" in kinds(await many.of_chat(first["chat_session_id"]))


async def test_a_new_chat_in_a_conversation_cancels_the_one_that_runs_there(
    client: Client, model: OpenAIFake, many: DialectSocket
):
    conversation = await client.session()
    model.script(Text("Once upon"), Hang())
    model.reply("Fine.")
    first = await many.chat("Tell me", conversation_id=conversation)
    await many.expect("chunk")
    await many.send("chat", data={"message": "Stop", "conversation_id": conversation})
    cancelled = await many.expect("cancelled")
    assert cancelled["data"]["chat_session_id"] == first["chat_session_id"]
    starts = [frame["data"] for frame in many.seen if frame["type"] == "chat_session_start"]
    second = starts[1] if len(starts) > 1 else (await many.expect("chat_session_start"))["data"]
    frames = await many.of_chat(second["chat_session_id"])
    assert content_of(frames) == "Fine."
    assert kinds(many.seen).count("cancelled") == 1
    assert [content for _, content in await client.said(conversation)] == ["Tell me", "Once upon", "Stop", "Fine."]


async def test_closing_the_socket_does_not_stop_the_chat(client: Client, model: OpenAIFake, many: DialectSocket):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    start = await many.chat("Hi")
    await many.expect("chunk")
    await many.connection.close()
    go_on.set()
    watcher = await client.open(start["conversation_id"], "after=0")
    await watcher.expect("post_response_complete")
    assert (await client.said(start["conversation_id"]))[1] == ("assistant", "Hello")


@pytest.mark.parametrize(
    ("steps", "code", "shown"),
    [((Status(401),), "provider_authentication", ""), ((Text("Half"), Cut()), "provider_broke_off", "Half")],
)
async def test_a_chat_that_fails_says_why_once_and_is_never_done(
    client: Client, model: OpenAIFake, many: DialectSocket, steps: Any, code: str, shown: str
):
    model.script(*steps)
    start = await many.chat("Hi")
    frames = await many.of_chat(start["chat_session_id"], last=["error"])
    assert frames[-1]["data"]["code"] == code
    assert content_of(frames) == shown
    assert await many.answered() == []
    again = await many.chat("Again", conversation_id=start["conversation_id"])
    assert content_of(await many.of_chat(again["chat_session_id"])) == "Hello there."


async def test_provider_and_model_may_be_named_and_stream_is_understood(model: OpenAIFake, many: DialectSocket):
    start = await many.chat(
        "Hi",
        provider="openai",
        provider_settings={"model": "other"},
        chat_controls={"stream": True, "temperature": 0.5},
    )
    await many.of_chat(start["chat_session_id"])
    body = model.requests[0].body
    assert (body["model"], body["temperature"]) == ("other", 0.5)


async def sessions(client: Client) -> list[str]:
    return [item["id"] for item in (await client.http.get("/api/sessions", params={"limit": 5})).json()["items"]]


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "http://evil.example"},
        {"api_key": "sk-x"},
        {"base_url": "http://evil.example", "model": "x"},
        {"Host": "x"},
        {"options": {"host": "x"}},
    ],
)
async def test_a_chat_cannot_point_the_service_at_an_address(
    client: Client, model: OpenAIFake, many: DialectSocket, settings: dict[str, Any]
):
    before = await sessions(client)
    await many.send("chat", data={"message": "Hi", "provider": "openai", "provider_settings": settings})
    error = await many.expect("error")
    assert error["data"]["code"] == "provider_host_not_allowed"
    assert "sk-x" not in json.dumps(error)
    assert model.requests == []
    assert await sessions(client) == before


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"message": ""}, "invalid_request"),
        ({"message": " \n"}, "invalid_request"),
        ({"message": "a\0b"}, "invalid_request"),
        ({"message": "Hi", "provider": "nobody"}, "unknown_provider"),
        ({"message": "Hi", "chat_controls": {"warmth": 1}}, "unknown_control"),
        ({"message": "Hi", "chat_controls": {"temperature": 9}}, "invalid_control"),
        ({"message": "Hi", "provider_settings": {"model": 7}}, "invalid_request"),
        ({"message": "Hi", "provider_settings": {"model": "a\0b"}}, "invalid_request"),
        ({"message": "Hi", "persona_id": "01a20047-0000-7000-8000-000000000000"}, "not_found"),
        ({"message": "Hi", "conversation_id": "01a20047-0000-7000-8000-000000000000"}, "not_found"),
        ({"message": "Hi", "conversation_id": "mine"}, "invalid_frame"),
        ({"message": 7}, "invalid_frame"),
        ({}, "invalid_frame"),
        ({"message": "Hi", "session_id": "x"}, "invalid_frame"),
    ],
)
async def test_a_chat_that_cannot_be_carried_out_leaves_nothing_behind(
    client: Client, model: OpenAIFake, many: DialectSocket, data: dict[str, Any], code: str
):
    before = await sessions(client)
    await many.send("chat", data=data)
    error = await many.expect("error")
    assert error["data"]["code"] == code
    assert "chat_session_id" not in error["data"]
    assert await sessions(client) == before
    assert model.requests == []
    assert await many.answered() == []


async def test_somebody_elses_things_look_like_ones_that_do_not_exist(
    client: Client, many: DialectSocket, stranger: Stranger
):
    for foreign, nobodys in (
        ({"conversation_id": stranger.session_id}, {"conversation_id": str(uuid4())}),
        ({"persona_id": stranger.persona_id}, {"persona_id": str(uuid4())}),
    ):
        answers: list[Event] = []
        for data in (foreign, nobodys):
            await many.send("chat", data={"message": "Hi", **data})
            answers.append(await many.expect("error"))
        assert answers[0] == answers[1]
        assert answers[0]["data"]["code"] == "not_found"
    for run_id in (stranger.run_id, str(uuid4())):
        await many.send("cancel", session_id=run_id)
        assert (await many.expect("error"))["data"]["code"] == "not_found"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "null",
        '{"type":"nothing"}',
        '{"type":"chat"}',
        '{"type":"chat","message":"Hi"}',
        '{"type":"cancel"}',
        '{"type":"cancel","session_id":"x"}',
        '{"type":"cancel","data":{"session_id":"x"}}',
        '{"type":"chat","data":{"message":"\\ud800"}}',
        '{"type":"message","content":"Hi"}',
        b"\x00binary",
    ],
    ids=range(13),
)
async def test_a_malformed_frame_is_an_error_and_a_running_chat_goes_on(
    model: OpenAIFake, many: DialectSocket, text: str | bytes
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    start = await many.chat("Hi")
    await many.expect("chunk")
    await many.connection.send(text)
    error = await many.expect("error")
    assert error["data"]["code"] in ("invalid_frame", "binary_not_supported")
    go_on.set()
    assert content_of(await many.of_chat(start["chat_session_id"])) == "lo"


async def test_pings_are_answered(many: DialectSocket):
    await many.send("ping")
    assert await many.next() == {"type": "pong", "data": {}}
    await many.send("ping", data={"n": 1})
    assert await many.next() == {"type": "pong", "data": {"n": 1}}


async def test_chats_of_two_sockets_are_told_to_their_own_socket_only(
    client: Client, model: OpenAIFake, many: DialectSocket
):
    other = await client.multiplexed()
    start = await many.chat("Hi")
    await many.of_chat(start["chat_session_id"])
    assert await other.answered() == []


async def test_a_conversation_deleted_in_mid_chat_is_said_and_the_socket_stays(
    client: Client, model: OpenAIFake, many: DialectSocket
):
    model.script(Text("Hel"), Hang())
    start = await many.chat("Hi")
    await many.expect("chunk")
    await client.http.delete(f"/api/conversations/{start['conversation_id']}")
    frames = await many.of_chat(start["chat_session_id"], last=["cancelled", "error"])
    assert frames[-1]["type"] in ("cancelled", "error")
    again = await many.chat("Hi")
    assert content_of(await many.of_chat(again["chat_session_id"])) == "Hello there."
