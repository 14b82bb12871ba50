"""One message and its reply, as the protocol tells it."""

import asyncio
import json

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import CallPart, Finish, Hang, Refusal, Text, Thinking, Tokens, Wait, call
from tests.integration.sockets.client import (
    Client,
    Socket,
    assert_gapless,
    is_uuid,
    one,
    sha256,
    text_of,
    types_of,
)
from tests.integration.sockets.conftest import Opened

WHOLE_RUN = [
    "message_accepted",
    "stage_update",
    "stage_update",
    "stage_update",
    "stage_update",
    "context_usage",
    "assistant_start",
    "text_delta",
    "assistant_end",
    "stage_update",
    "stage_update",
    "stage_update",
    "stage_update",
    "post_response_complete",
]


async def test_the_events_of_a_run_come_in_the_order_that_the_protocol_promises(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Hel"), Text("lo"), Tokens(7, 2))
    events = await socket.reply("Hi", client_message_id="mine")

    assert types_of(events) == WHOLE_RUN
    assert_gapless(events)
    assert events[0]["seq"] == 1
    assert len({event["run_id"] for event in events}) == 1
    stages = [(event["stage"], event["status"]) for event in events if event["type"] == "stage_update"]
    assert stages == [(stage, status) for stage in (1, 2, 4, 5) for status in ("started", "finished")]
    assert all(event["message"] for event in events if event["type"] == "stage_update")

    accepted, start, end = one(events, "message_accepted"), one(events, "assistant_start"), one(events, "assistant_end")
    history = await client.history(session_id)
    assert accepted["client_message_id"] == "mine"
    assert accepted["queued"] is False
    assert [message["id"] for message in history] == [accepted["message_id"], start["message_id"]]
    assert end["message_id"] == start["message_id"]
    assert (start["provider"], start["model"], start["persona_id"]) == ("openai", "fake-small", None)
    assert end["finish_reason"] == history[1]["finish_reason"] == "stop"
    assert end["usage"] == {"input_tokens": 7, "output_tokens": 2, "thinking_tokens": 0}
    assert 0 <= end["timings"]["first_delta_ms"] <= end["timings"]["total_ms"]


async def test_the_checksum_is_of_the_text_that_was_shown_and_stored(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    text = 'Grüße, 世界 🙂\n\ttab \u2028 "quotes" \\ back\u0007'
    model.script(Thinking("not part of it"), *map(Text, text))
    events = await socket.reply("Hi")
    assert text_of(events) == text
    assert one(events, "assistant_end")["text_sha256"] == sha256(text)
    assert (await client.said(session_id))[1] == ("assistant", text)


async def test_a_message_without_an_id_is_given_one(socket: Socket):
    assert is_uuid((await socket.reply("Hi"))[0]["client_message_id"])


async def test_deltas_are_shown_while_the_model_is_still_talking(model: OpenAIFake, socket: Socket):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi")
    first = await socket.expect("text_delta")
    assert first["delta"] == "Hel"  # the model is held until we have seen it
    go_on.set()
    assert text_of(await socket.rest_of(first["run_id"])) == "lo"


async def test_thinking_stands_apart_from_text_and_keeps_its_place(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Thinking("Hmm. "), Thinking("Well. "), Text("So: "), Thinking("Or? "), Text("yes."), Tokens(1, 5, 3))
    events = await socket.reply("Hi")
    assert text_of(events, "thinking_delta") == "Hmm. Well. Or? "
    deltas = [type for type in types_of(events) if type.endswith("_delta")]
    assert deltas == ["thinking_delta", "text_delta", "thinking_delta", "text_delta"]
    reply = (await client.history(session_id))[1]
    assert reply["content"] == "So: yes."
    assert reply["parts"] == [
        {"type": "thinking", "text": "Hmm. Well. "},
        {"type": "text", "text": "So: "},
        {"type": "thinking", "text": "Or? "},
        {"type": "text", "text": "yes."},
    ]
    assert one(events, "assistant_end")["text_sha256"] == sha256("So: yes.")
    assert one(events, "assistant_end")["usage"]["thinking_tokens"] == 3


async def test_thinking_in_tags_is_thinking_however_it_is_cut(model: OpenAIFake, socket: Socket):
    model.script(*map(Text, "<think>Hmm.</think>\nYes."))
    events = await socket.reply("Hi")
    assert (text_of(events, "thinking_delta"), text_of(events)) == ("Hmm.", "Yes.")


async def test_a_refusal_is_told_as_one(client: Client, model: OpenAIFake, session_id: str, socket: Socket):
    model.script(Refusal("I will "), Refusal("not."))
    events = await socket.reply("Do harm")
    assert text_of(events, "refusal_delta") == "I will not."
    assert one(events, "assistant_end")["finish_reason"] == "refusal"
    reply = (await client.history(session_id))[1]
    assert reply["parts"] == [{"type": "refusal", "text": "I will not."}]
    assert reply["finish_reason"] == "refusal"


async def test_a_reply_that_hit_the_models_limit_says_so(model: OpenAIFake, socket: Socket):
    model.script(Text("And then"), Finish("length"))
    assert one(await socket.reply("Hi"), "assistant_end")["finish_reason"] == "length"


async def test_several_turns_get_one_reply(client: Client, model: OpenAIFake, session_id: str, socket: Socket):
    await socket.send("message", messages=[{"content": "One"}, {"content": "Two"}, {"content": "Three"}])
    events = await socket.run()
    assert types_of(events) == WHOLE_RUN
    history = await client.history(session_id)
    assert [(m["role"], m["content"]) for m in history[:3]] == [("user", "One"), ("user", "Two"), ("user", "Three")]
    assert [m["role"] for m in history] == ["user", "user", "user", "assistant"]
    assert events[0]["message_id"] == history[2]["id"]
    assert (await model.request()).body["messages"] == [
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
        {"role": "user", "content": "Three"},
    ]


async def test_the_model_is_given_the_conversation_so_far(model: OpenAIFake, socket: Socket):
    model.reply("First reply")
    await socket.reply("First")
    await socket.reply("Second")
    assert (await model.request(1)).body["messages"] == [
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "First reply"},
        {"role": "user", "content": "Second"},
    ]


async def test_a_persona_gives_the_system_prompt_and_the_messages_word_goes_first(client: Client, model: OpenAIFake):
    sessions = await client.persona(name="Of the session", template="Speak like a pirate.")
    messages = await client.persona(name="Of the message", template="Speak like a poet.")
    socket = await client.open(await client.session(persona_id=sessions))
    first = await socket.reply("Hi")
    second = await socket.reply("Hi", persona_id=messages)
    assert one(first, "assistant_start")["persona_id"] == sessions
    assert one(second, "assistant_start")["persona_id"] == messages
    system = [(await model.request(i)).body["messages"][0] for i in (0, 1)]
    assert system == [
        {"role": "system", "content": "Speak like a pirate."},
        {"role": "system", "content": "Speak like a poet."},
    ]


async def test_controls_reach_the_model_and_the_messages_word_goes_first(client: Client, model: OpenAIFake):
    persona = await client.persona(name="Warm", controls={"temperature": 1.5, "top_p": 0.5, "seed": 1})
    session_id = await client.session(persona_id=persona, controls={"temperature": 1.0, "max_tokens": 64})
    socket = await client.open(session_id)
    await socket.reply("Hi", controls={"temperature": 0.25, "stop": ["END"], "seed": None}, model="other-model")
    body = (await model.request()).body
    assert body["temperature"] == 0.25
    assert body["top_p"] == 0.5
    assert body["seed"] == 1
    assert body["stop"] == ["END"]
    assert 64 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert body["model"] == "other-model"


async def test_a_message_may_name_its_connection(client: Client, model: OpenAIFake, socket: Socket):
    events = await socket.reply("Hi", connection_id="demo")
    assert one(events, "assistant_start")["provider"] == "demo"
    assert text_of(events).startswith("Demo (no model is connected)")
    assert model.requests == []


async def test_context_usage_never_exceeds_the_models_limit(model: OpenAIFake, opened: Opened):
    model.models[0]["context_length"] = 512
    try:
        async with opened(context={"reply_tokens": 100}) as client:
            socket = await client.open(await client.session())
            for i in range(6):
                usage = one(await socket.reply(f"{i} " + "word " * 60), "context_usage")
                assert usage["limit"] == 512
                assert usage["tokens"] + usage["parts"]["reserve"] <= 512
                assert usage["threshold"] == int(412 * 0.8)
                filled = sum(tokens for part, tokens in usage["parts"].items() if part != "reserve")
                assert filled == usage["tokens"]
            newest = (await model.request(5)).body["messages"]
            assert newest[-1]["content"].startswith("5 ")
            assert not any(message["content"].startswith("0 ") for message in newest)
    finally:
        model.models[0]["context_length"] = 16_384


async def test_a_model_that_calls_a_tool_that_is_not_there_is_told_so_and_goes_on(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Let me look. "), call(0, "no_such_tool", {"a": 1}), Tokens(10, 5))
    model.script(Text("I cannot."), Tokens(20, 3))
    events = await socket.reply("Look it up")
    assert types_of(events)[6:-5] == [
        "assistant_start",
        "text_delta",
        "tool_start",
        "tool_done",
        "text_delta",
        "assistant_end",
    ]
    done = one(events, "tool_done")
    assert (done["tool_call_id"], done["status"]) == ("call_0", "failed")
    assert json.loads(one(events, "tool_start")["arguments"]) == {"a": 1}
    end = one(events, "assistant_end")
    assert end["usage"] == {"input_tokens": 30, "output_tokens": 8, "thinking_tokens": 0}
    assert end["text_sha256"] == sha256("Let me look. I cannot.")
    second = (await model.request(1)).body["messages"]
    assert second[-2]["tool_calls"][0]["id"] == second[-1]["tool_call_id"] == "call_0"
    parts = (await client.history(session_id))[1]["parts"]
    assert [part["type"] for part in parts] == ["text", "tool_call", "tool_result", "text"]


async def test_a_model_that_never_stops_calling_tools_is_stopped(model: OpenAIFake, opened: Opened):
    for i in range(5):
        model.script(call(0, "again", "{}", id=f"call_{i}"))
    async with opened(limits={"max_turns": 3}) as client:
        socket = await client.open(await client.session())
        events = await socket.reply("Hi")
    assert one(events, "assistant_end")["finish_reason"] == "max_turns"
    assert len(model.requests) == 3


async def test_a_tool_call_whose_arguments_are_not_json_is_answered_to_the_model(model: OpenAIFake, socket: Socket):
    model.script(CallPart(0, '{"a": ', "broken", "call_0"), Finish("tool_calls"))
    model.reply("Sorry.")
    events = await socket.reply("Hi")
    assert one(events, "tool_done")["status"] == "failed"
    assert text_of(events) == "Sorry."
    assert one(events, "assistant_end")["finish_reason"] == "stop"


async def test_both_tabs_are_told_the_same(client: Client, session_id: str, socket: Socket):
    second = await client.open(session_id)
    events = await socket.reply("Hi")
    assert await second.run() == events


async def test_a_run_does_not_need_the_socket_that_asked_for_it(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi")
    run_id = (await socket.expect("text_delta"))["run_id"]
    socket.connection.transport.abort()
    go_on.set()
    watcher = await client.open(session_id, "after=0")
    assert text_of(await watcher.rest_of(run_id)) == "Hello"
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Hello")]


async def test_changes_of_the_session_are_told_to_its_sockets(client: Client, session_id: str, socket: Socket):
    await client.http.patch(f"/api/sessions/{session_id}", json={"title": "New", "pinned": True})
    updated = await socket.expect("session_updated")
    assert (updated["seq"], updated["title"], updated["pinned"]) == (1, "New", True)
    assert "run_id" not in updated
    assert (await socket.reply("Hi"))[0]["seq"] == 2


async def test_a_reader_that_never_reads_does_not_hold_up_the_others(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    lazy = await client.connect(f"/ws/chat/{session_id}", max_queue=1)
    lazy.transport.pause_reading()
    model.script(*[Text("x" * 20_000)] * 150)
    events = await socket.reply("Talk a lot")
    assert len(text_of(events)) == 3_000_000
    assert_gapless(events)
    assert (await client.said(session_id))[1][1] == "x" * 3_000_000
    lazy.transport.abort()


async def test_a_session_is_not_held_up_by_a_model_that_hangs_in_another(
    client: Client, model: OpenAIFake, socket: Socket
):
    model.script(Hang())
    await socket.say("Hang")
    await model.request()
    other = await client.open(await client.session())
    assert types_of(await other.reply("Hi")) == WHOLE_RUN
