"""Frames that cannot be carried out: an error names the fault, and nothing else changes."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.sockets.client import Client, Socket, text_of
from tests.integration.sockets.conftest import Opened, Stranger

NOT_JSON = ["", " ", "{", "hello", '{"type":"ping"', "{'type':'ping'}", '{"type":"ping"}{}', "\ufeff{}", "[" * 50_000]
NOT_A_FRAME = ["null", "1", '"ping"', "[]", "{}", '{"type":null}', '{"type":"nothing"}', '{"Type":"ping"}']
"""JSON, but nothing that anybody could mean."""
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, "message"),
    ({"content": None}, "message"),
    ({"content": 1}, "content"),
    ({"content": ["Hi"]}, "content"),
    ({"content": "Hi", "messages": [{"content": "Hi"}]}, "message"),
    ({"messages": []}, "messages"),
    ({"messages": ["Hi"]}, "messages.0"),
    ({"messages": [{"content": "Hi", "role": "system"}]}, "messages.0.role"),
    ({"messages": [{"content": "Hi"}] * 21}, "messages"),
    ({"content": "Hi", "run": True}, "run"),
    ({"content": "Hi", "when_busy": "shout"}, "when_busy"),
    ({"content": "Hi", "persona_id": "Anna"}, "persona_id"),
    ({"content": "Hi", "client_message_id": ""}, "client_message_id"),
    ({"content": "Hi", "client_message_id": "x" * 201}, "client_message_id"),
    ({"content": "Hi", "client_message_id": 7}, "client_message_id"),
    ({"content": "Hi", "model": ""}, "model"),
    ({"content": "Hi", "controls": ["temperature"]}, "controls"),
    ({"content": "Hi", "host": "http://evil.example"}, "host"),
]
HUGE = ["1" + "0" * 400, "-1" + "0" * 40, "18446744073709551616", "1e999", "NaN"]
EMPTY: list[dict[str, Any]] = [
    {"content": ""},
    {"content": " \n\t\u3000"},
    {"messages": [{"content": "Hi"}, {"content": ""}]},
]


async def assert_nothing_changed(client: Client, socket: Socket, session_id: str) -> None:
    assert await client.newest_seq(session_id) == 0
    assert await client.history(session_id) == []
    assert await socket.answered() == []


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
async def test_what_is_not_json_is_named_so(client: Client, socket: Socket, session_id: str, text: str):
    await socket.connection.send(text)
    error = await socket.refused("invalid_frame")
    assert error["whose"] == "caller"
    assert "JSON" in error["message"]
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize("text", NOT_A_FRAME)
async def test_what_is_no_frame_is_refused(client: Client, socket: Socket, session_id: str, text: str):
    await socket.connection.send(text)
    await socket.refused("invalid_frame")
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize(("fields", "field"), FIELDS)
async def test_a_wrong_field_is_named(
    client: Client, socket: Socket, session_id: str, fields: dict[str, Any], field: str
):
    await socket.send("message", **fields)
    error = await socket.refused("invalid_frame")
    assert error["details"]["field"] == field
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize("fields", EMPTY)
async def test_a_message_without_words_is_refused(
    client: Client, socket: Socket, session_id: str, fields: dict[str, Any]
):
    await socket.send("message", **fields)
    error = await socket.refused("invalid_request")
    assert error["details"]["field"] == "content"
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "a\0b"},
        {"messages": [{"content": "fine"}, {"content": "\0"}]},
        {"content": "Hi", "client_message_id": "a\0b"},
        {"content": "Hi", "model": "a\0b"},
        {"content": "Hi", "controls": {"stop": ["\0"]}},
        {"content": "Hi", "controls": {"provider_options": {"a\0b": "\0"}}},
    ],
    ids=["content", "messages", "client_message_id", "model", "stop", "provider_options"],
)
async def test_what_the_database_cannot_store_is_the_callers_fault_and_not_an_outage(
    client: Client, socket: Socket, session_id: str, fields: dict[str, Any]
):
    await socket.send("message", **fields)
    error = await socket.expect("error")
    assert error["whose"] == "caller", error
    assert error["details"]["field"] in ("content", "client_message_id", "model", "stop", "provider_options")
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "-1" + "0" * 40, "18446744073709551616", "1e999", "NaN"], ids=range(5)
)
async def test_numbers_that_cannot_be_stored_are_the_callers_fault_too(
    client: Client, socket: Socket, session_id: str, number: str
):
    for control in ('"provider_options":{"x":[HERE]}', '"temperature":HERE', '"seed":HERE', '"keep_alive":HERE'):
        controls = "{" + control.replace("HERE", number) + "}"
        await socket.connection.send('{"type":"message","content":"Hi","controls":' + controls + "}")
        error = await socket.expect("error")
        assert error["whose"] == "caller", error
    await assert_nothing_changed(client, socket, session_id)


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud83d", r"\ude00\ud83d"])
@pytest.mark.parametrize("field", ["content", "client_message_id", "model"])
async def test_half_a_surrogate_pair_is_refused(
    client: Client, socket: Socket, session_id: str, escape: str, field: str
):
    fields = {"content": "Hi", "client_message_id": "x", "model": "y"} | {field: "HERE"}
    await socket.connection.send(json.dumps({"type": "message", **fields}).replace("HERE", f"a{escape}b"))
    assert (await socket.refused("invalid_frame"))["whose"] == "caller"
    await assert_nothing_changed(client, socket, session_id)


async def test_a_whole_surrogate_pair_is_a_character(client: Client, socket: Socket, session_id: str):
    await socket.connection.send(r'{"type":"message","content":"\ud83d\ude42"}')
    await socket.run()
    assert (await client.said(session_id))[0] == ("user", "🙂")


@pytest.mark.parametrize(
    ("controls", "code", "field"),
    [
        ({"temprature": 1}, "unknown_control", "temprature"),
        ({"temperature": 3}, "invalid_control", "temperature"),
        ({"temperature": "hot"}, "invalid_control", "temperature"),
        ({"temperature": True}, "invalid_control", "temperature"),
        ({"max_tokens": 0}, "invalid_control", "max_tokens"),
        ({"stop": []}, "invalid_control", "stop"),
        ({"provider_options": {"base_url": "http://evil.example"}}, "invalid_control", "provider_options"),
        ({"provider_options": {"api_key": "x"}}, "invalid_control", "provider_options"),
    ],
)
async def test_a_bad_control_is_named(
    client: Client, socket: Socket, session_id: str, controls: dict[str, Any], code: str, field: str
):
    await socket.say("Hi", controls=controls)
    error = await socket.refused(code)
    assert error["details"]["field"] == field
    await assert_nothing_changed(client, socket, session_id)


async def test_an_unknown_control_is_answered_with_those_that_exist(socket: Socket):
    await socket.say("Hi", controls={"temprature": 1})
    details = (await socket.refused("unknown_control"))["details"]
    assert "temperature" in details["known"]
    assert details["did_you_mean"] == "temperature"


async def test_an_unknown_connection_is_answered_with_those_that_exist(client: Client, socket: Socket, session_id: str):
    await socket.say("Hi", connection_id="http://evil.example/v1")
    assert (await socket.refused("unknown_provider"))["details"]["known"] == ["openai", "demo"]
    await assert_nothing_changed(client, socket, session_id)


async def test_somebody_elses_persona_looks_like_one_that_does_not_exist(
    client: Client, model: OpenAIFake, socket: Socket, session_id: str, stranger: Stranger
):
    for persona_id in (stranger.persona_id, "01a20047-0000-7000-8000-000000000000"):
        await socket.say("Hi", persona_id=persona_id)
        error = await socket.refused("not_found")
        assert error["details"] == {"field": "persona_id"}
    await assert_nothing_changed(client, socket, session_id)
    assert model.requests == []


async def test_a_message_over_the_limit_is_refused_by_its_bytes(opened: Opened):
    async with opened(limits={"message_bytes": 100}) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        for fields in ({"content": "ä" * 51}, {"messages": [{"content": "x" * 51}, {"content": "x" * 50}]}):
            await socket.send("message", **fields)
            assert (await socket.refused("invalid_request"))["details"]["field"] == "content"
        await assert_nothing_changed(client, socket, session_id)
        await socket.reply("ä" * 50)


async def test_authenticate_is_only_the_first_frame(client: Client, session_id: str):
    socket = await client.open(session_id)
    await socket.send("authenticate", token="whatever")
    assert await socket.answered() == []
    await socket.send("authenticate", token="whatever")
    assert (await socket.refused("invalid_request"))["details"]["field"] == "type"


async def test_a_binary_frame_is_refused_and_the_socket_goes_on(client: Client, socket: Socket, session_id: str):
    for data in (b'{"type":"message","content":"Hi"}', b"", b"\0"):
        await socket.connection.send(data)
        await socket.refused("binary_not_supported")
    await assert_nothing_changed(client, socket, session_id)


async def test_a_frame_over_the_limit_closes_with_4413_and_one_below_it_is_taken(
    client: Client, socket: Socket, session_id: str
):
    frame = json.dumps({"type": "message", "content": "HERE"})
    await socket.connection.send(frame.replace("HERE", "x" * (65_536 - len(frame) + 4)))
    await socket.run()
    await socket.connection.send(frame.replace("HERE", "x" * (65_536 - len(frame) + 5)))
    assert (await socket.closed())[0] == 4413
    assert len(await client.history(session_id)) == 2


async def test_invalid_utf8_closes_with_1007_and_the_run_goes_on(
    client: Client, model: OpenAIFake, socket: Socket, session_id: str
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi")
    run_id = (await socket.expect("text_delta"))["run_id"]
    socket.connection.protocol.send_text(b'{"type":"ping","nonce":"\xff\xfe"}')
    socket.connection.transport.write(b"".join(socket.connection.protocol.data_to_send()))
    assert (await socket.closed())[0] == 1007
    go_on.set()
    watcher = await client.open(session_id, "after=0")
    assert text_of(await watcher.rest_of(run_id)) == "Hello"
    assert (await client.said(session_id))[1] == ("assistant", "Hello")


async def test_bad_frames_change_nothing_while_a_reply_runs(
    client: Client, model: OpenAIFake, socket: Socket, session_id: str
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi")
    shown = await socket.until("text_delta")
    bad = [*NOT_JSON[:-1], *NOT_A_FRAME, *(json.dumps({"type": "message", **fields}) for fields, _ in FIELDS)]
    for text in bad:
        await socket.connection.send(text)
    errors = await socket.answered()
    assert [error["type"] for error in errors] == ["error"] * len(bad)
    go_on.set()
    rest = await socket.rest_of(shown[0]["run_id"])
    assert rest[0]["seq"] == shown[-1]["seq"] + 1
    assert text_of([*shown, *rest]) == "Hello"
    assert len(await client.history(session_id)) == 2


async def test_an_error_says_whether_to_try_again(socket: Socket):
    await socket.send("message")
    error = await socket.refused("invalid_frame")
    assert error["retryable"] is False
    assert error["resend_safe"] is True


async def test_pings_are_answered_with_their_nonce_and_in_order(socket: Socket):
    nonces: list[Any] = ["a", "", 7, -1, "🙂", 2**53, None]
    for nonce in nonces:
        await socket.send("ping", nonce=nonce)
    await socket.send("ping")
    pongs = [await socket.next() for _ in range(len(nonces) + 1)]
    assert [pong["type"] for pong in pongs] == ["pong"] * len(pongs)
    assert [pong.get("nonce") for pong in pongs] == [*nonces, None]
    assert all("seq" not in pong for pong in pongs)


async def test_a_nonce_of_any_size_does_not_break_the_socket(socket: Socket):
    for nonce in ("1" + "0" * 300, '"' + "x" * 60_000 + '"', "true", "[]", "1.5", '{"a":1}'):
        await socket.connection.send('{"type":"ping","nonce":' + nonce + "}")
        assert (await socket.next())["type"] in ("pong", "error")
    assert await socket.answered() == []


async def test_a_socket_that_only_listens_may_stay(client: Client, socket: Socket, session_id: str):
    speaker = await client.open(session_id)
    events = await speaker.reply("Hi")
    assert await socket.run() == events
    assert socket.connection.close_code is None
