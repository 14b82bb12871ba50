"""A model server that fails in every way it can: one honest error, what was shown is kept, and the session goes on."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import (
    Body,
    Cut,
    Endless,
    Fault,
    Finish,
    Hang,
    Headers,
    Raw,
    Status,
    Step,
    Stop,
    Text,
    Wait,
)
from tests.integration.sockets.client import Client, Event, Socket, one, sha256, text_of, types_of
from tests.integration.sockets.conftest import Opened

FAILED_BEFORE_A_WORD = ["assistant_start", "error", "assistant_end"]


async def failed(socket: Socket) -> tuple[list[Event], Event]:
    """The events of a run that fails, and its error."""
    events = await socket.reply("Hi")
    error, end = events[-2:]
    assert (error["type"], end["type"], end["finish_reason"]) == ("error", "assistant_end", "error")
    assert error["seq"] == end["seq"] - 1
    assert error["run_id"] == end["run_id"]
    assert types_of(events).count("error") == 1
    assert end["text_sha256"] == sha256(text_of(events))
    return events, error


async def assert_goes_on(client: Client, socket: Socket, session_id: str, model: OpenAIFake) -> None:
    """The next message is answered, and the model is given a conversation that it can be given."""
    events = await socket.reply("And now?")
    assert text_of(events) == "Hello there."
    messages = model.requests[-1].body["messages"]
    assert messages[-1] == {"role": "user", "content": "And now?"}
    assert [message["role"] for message in messages if message["role"] != "assistant"] == ["user", "user"]
    assert (await client.said(session_id))[-1] == ("assistant", "Hello there.")


@pytest.mark.parametrize(
    ("step", "code", "whose", "retryable"),
    [
        (Status(401, "bad key sk-secret-key-123"), "provider_authentication", "provider", False),
        (Status(403, "not for you"), "provider_authentication", "provider", False),
        (Status(404, "no such model", code="model_not_found"), "unknown_model", "provider", False),
        (Status(400, "bad", code="context_length_exceeded"), "provider_context_too_long", "provider", False),
        (Status(400, "bad", code="content_filter"), "provider_refused_content", "provider", False),
        (Status(422, "strange"), "provider_rejected", "provider", False),
        (Status(429, "quota", code="insufficient_quota"), "provider_rate_limited", "provider", False),
        (Body("<html><body>Welcome to nginx</body></html>"), "provider_garbled", "provider", True),
        (Body("{}", "application/json"), "provider_garbled", "provider", True),
    ],
)
async def test_a_refusal_of_the_server_is_told_at_once(
    client: Client,
    model: OpenAIFake,
    session_id: str,
    socket: Socket,
    step: Step,
    code: str,
    whose: str,
    retryable: bool,
):
    model.script(step)
    events, error = await failed(socket)
    assert (error["code"], error["whose"], error["retryable"]) == (code, whose, retryable)
    assert types_of(events)[-3:] == FAILED_BEFORE_A_WORD
    assert len(model.requests) == 1
    assert "secret" not in json.dumps(events)
    assert "<html" not in error["message"]
    await assert_goes_on(client, socket, session_id, model)


async def test_an_unknown_model_that_a_message_named_is_the_models_servers_word(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Status(404, "The model `gpt-9` does not exist", code="model_not_found"))
    await socket.say("Hi", model="gpt-9")
    events = await socket.run()
    assert one(events, "assistant_start")["model"] == "gpt-9"
    assert one(events, "error")["code"] == "unknown_model"
    assert one(events, "assistant_end")["finish_reason"] == "error"
    await assert_goes_on(client, socket, session_id, model)


async def test_a_server_that_is_down_is_said_to_be(database_url: str, model: OpenAIFake, opened: Opened):
    async with OpenAIFake() as gone:
        address = gone.url
    async with opened(openai_base_url=address, timeouts={"connect": 1.0}) as client:
        socket = await client.open(await client.session())
        _, error = await failed(socket)
        assert error["code"] == "provider_unreachable"
        assert error["retryable"]


@pytest.mark.parametrize("step", [Status(500), Status(503), Status(429, headers={"retry-after": "0.05"}), Cut()])
async def test_a_passing_fault_before_the_first_word_is_not_even_seen(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, step: Step
):
    model.script(step)
    model.script(step)
    model.reply("Here I am.")
    events = await socket.reply("Hi")
    assert text_of(events) == "Here I am."
    assert "error" not in types_of(events)
    assert types_of(events).count("assistant_start") == 1
    assert len(model.requests) == 3


async def test_a_fault_that_does_not_pass_is_told_after_two_more_attempts(model: OpenAIFake, socket: Socket):
    for _ in range(4):
        model.script(Status(500, "broken"))
    _, error = await failed(socket)
    assert error["code"] == "provider_error"
    assert error["details"]["status"] == 500
    assert len(model.requests) == 3


async def test_a_server_that_asks_for_more_patience_than_we_have_is_told_at_once(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Status(429, "slow down", headers={"retry-after": "120"}))
    _, error = await failed(socket)
    assert (error["code"], error["details"]["retry_after"]) == ("provider_rate_limited", 120)
    assert error["retryable"]
    assert len(model.requests) == 1
    await assert_goes_on(client, socket, session_id, model)


@pytest.mark.parametrize("steps", [(Hang(),), (Headers(), Hang()), (Raw(b": keep-alive\n\n"), Hang())])
async def test_a_server_that_never_begins_is_given_up(model: OpenAIFake, opened: Opened, steps: tuple[Step, ...]):
    model.script(*steps)
    async with opened(timeouts={"first_token": 0.3}) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        events, error = await failed(socket)
        assert error["code"] == "provider_timeout"
        assert types_of(events)[-3:] == FAILED_BEFORE_A_WORD
        await (await model.request()).closed
        assert model.requests[0].ended_by == "client"
        await assert_goes_on(client, socket, session_id, model)


async def test_a_server_that_falls_silent_is_given_up_and_its_words_are_kept(model: OpenAIFake, opened: Opened):
    model.script(Text("Once upon"), Hang())
    async with opened(timeouts={"between_tokens": 0.3}) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        events, error = await failed(socket)
        assert (error["code"], text_of(events)) == ("provider_timeout", "Once upon")
        assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Once upon")]
        assert len(model.requests) == 1


async def test_a_reply_that_takes_longer_than_a_run_may_take_is_ended(model: OpenAIFake, opened: Opened):
    model.script(Endless("more ", 0.02))
    async with opened(timeouts={"run": 0.6}) as client:
        socket = await client.open(await client.session())
        events, error = await failed(socket)
        assert (error["code"], error["whose"]) == ("run_timed_out", "server")
        assert text_of(events).startswith("more ")
        await (await model.request()).closed


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((Text("Once "), Text("upon"), Cut()), "provider_broke_off"),
        ((Text("Once "), Text("upon"), Stop()), "provider_broke_off"),
        ((Text("Once "), Text("upon"), Fault("overloaded")), "provider_error"),
        ((Text("Once "), Text("upon"), Raw(b"data: {not json}\n\n"), Hang()), "provider_garbled"),
        ((Text("Once "), Text("upon"), Raw(b'data: "\xff\xfe"\n\n'), Hang()), "provider_garbled"),
    ],
    ids=["cut", "ended early", "fault", "garbage", "bad utf-8"],
)
async def test_a_reply_that_breaks_keeps_what_was_shown(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, steps: tuple[Step, ...], code: str
):
    model.script(*steps)
    events, error = await failed(socket)
    assert text_of(events) == "Once upon"
    assert error["code"] == code
    reply = (await client.history(session_id))[1]
    assert (reply["content"], reply["finish_reason"]) == ("Once upon", "error")
    assert reply["parts"] == [{"type": "text", "text": "Once upon"}]
    assert len(model.requests) == 1, "a reply that was seen must not be begun anew in silence"
    await assert_goes_on(client, socket, session_id, model)
    assert model.requests[-1].body["messages"][1]["content"].startswith("Once upon")


@pytest.mark.parametrize("cut_every", [1, 2, 3, 7])
async def test_words_that_the_network_cut_in_mid_character_come_whole(
    model: OpenAIFake, socket: Socket, cut_every: int
):
    model.script(Text("Grüße, "), Text("世界 🙂"), Text(" e\u0301"), cut_every=cut_every)
    assert text_of(await socket.reply("Hi")) == "Grüße, 世界 🙂 e\u0301"


async def test_a_reply_with_characters_that_nobody_can_store_is_cleaned_and_not_lost(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("a\0b"), Text("\ud83d"), Text("\ude42"), Text("x\ud800y"), Text("\udc00"), Text("end\ud83d"))
    events = await socket.reply("Hi")
    text = "a\ufffdb🙂x\ufffdy\ufffdend\ufffd"
    assert text_of(events) == text
    assert one(events, "assistant_end")["text_sha256"] == sha256(text)
    assert (await client.said(session_id))[1] == ("assistant", text)


async def test_a_reply_without_end_is_stopped_at_the_limit(model: OpenAIFake, opened: Opened):
    model.script(Endless("0123456789" * 100, 0))
    async with opened(limits={"reply_bytes": 20_000}) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        events, error = await failed(socket)
        assert (error["code"], error["whose"], error["retryable"]) == ("reply_too_long", "model", False)
        assert 20_000 < len(text_of(events)) <= 21_000
        assert (await client.said(session_id))[1] == ("assistant", text_of(events))
        request = await model.request()
        async with asyncio.timeout(5):
            await request.closed
        assert request.ended_by == "client"


async def test_the_limit_of_a_reply_counts_bytes(model: OpenAIFake, opened: Opened):
    model.script(Endless("🙂" * 100, 0))
    async with opened(limits={"reply_bytes": 20_000}) as client:
        socket = await client.open(await client.session())
        events, _ = await failed(socket)
        assert 20_000 < len(text_of(events).encode()) <= 20_400


async def test_a_message_that_does_not_fit_the_model_is_told_so_before_the_model_is_asked(
    model: OpenAIFake, opened: Opened
):
    model.models[0]["context_length"] = 256
    try:
        async with opened() as client:
            session_id = await client.session()
            socket = await client.open(session_id)
            await socket.say("word " * 1000)
            events = await socket.run()
            error, end = events[-2:]
            assert (error["code"], error["whose"]) == ("context_too_long", "caller")
            assert error["details"]["needed"] > error["details"]["limit"] == 256
            assert end["message_id"] is None
            assert "assistant_start" not in types_of(events)
            assert model.requests == []
            assert [role for role, _ in await client.said(session_id)] == ["user"]
            assert text_of(await socket.reply("Shorter")) == "Hello there."
    finally:
        model.models[0]["context_length"] = 16_384


async def test_a_model_that_says_nothing_ends_without_harm(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Finish("stop"))
    events = await socket.reply("Hi")
    assert types_of(events)[-1] in ("post_response_complete", "assistant_end")
    assert types_of(events).count("assistant_end") == 1
    assert text_of(events) == ""
    await assert_goes_on(client, socket, session_id, model)


@pytest.mark.parametrize("value", [None, 64.0, 64])
async def test_a_control_in_any_of_its_forms_does_not_fail_the_run(model: OpenAIFake, socket: Socket, value: Any):
    events = await socket.reply("Hi", controls={"max_tokens": value, "response_format": "json", "stop": "END"})
    assert one(events, "assistant_end")["finish_reason"] == "stop"
    body = model.requests[0].body
    assert body["response_format"]["type"] == "json_object"
    assert value is None or 64 in (body.get("max_tokens"), body.get("max_completion_tokens"))


async def test_a_failing_model_in_one_session_leaves_the_others_alone(client: Client, model: OpenAIFake):
    go_on = asyncio.Event()
    good, bad = [await client.open(await client.session()) for _ in range(2)]
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await good.say("Hi")
    run_id = (await good.expect("text_delta"))["run_id"]
    for _ in range(3):
        model.script(Text("x"), Cut())
        await failed(bad)
    go_on.set()
    assert text_of(await good.rest_of(run_id)) == "lo"
