"""Words that steer a reply under way: taken before the model is asked again, or answered right after."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Cut, Hang, Text, Wait, call
from tests.integration.sockets.client import Client, Event, Socket, assert_gapless, one, text_of, types_of
from tests.integration.sockets.conftest import Opened
from tests.waiting import eventually


async def begin(model: OpenAIFake, socket: Socket, *, calls: bool = True) -> tuple[str, asyncio.Event]:
    """A reply under way: its run, and the gate behind which it calls a tool (that does not exist) or ends."""
    gate = asyncio.Event()
    model.script(Text("Looking. "), Wait(gate), call(0, "no_such_tool", {}) if calls else Text("Done."))
    await socket.say("Find it")
    return (await socket.expect("text_delta"))["run_id"], gate


async def steer(socket: Socket, content: str, **fields: Any) -> Event:
    await socket.say(content, when_busy="steer", **fields)
    return await socket.expect("message_accepted")


async def told(model: OpenAIFake, number: int) -> list[tuple[str, str]]:
    """Role and content of what the model was given in that request."""
    return [(message["role"], message["content"]) for message in (await model.request(number)).body["messages"]]


async def test_a_run_takes_what_steers_it_before_it_asks_the_model_again(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    model.reply("In red, then.")
    accepted = await steer(socket, "The red one")
    assert (accepted["run_id"], accepted["queued"]) == (run_id, False)
    gate.set()
    rest = await socket.rest_of(run_id)

    assert one(rest, "message_taken")["message_id"] == accepted["message_id"]
    assert types_of(rest)[:3] == ["tool_start", "tool_done", "message_taken"]
    assert [event["type"] for event in rest].count("assistant_end") == 1
    assert [role for role, _ in await told(model, 1)] == ["user", "assistant", "tool", "user"]
    assert (await told(model, 1))[-1] == ("user", "The red one")
    question, steered, reply = await client.history(session_id)
    assert [message["content"] for message in (question, steered, reply)] == [
        "Find it",
        "The red one",
        "Looking. In red, then.",
    ]
    assert (steered["parent_id"], reply["parent_id"]) == (question["id"], steered["id"])
    assert [part["type"] for part in reply["parts"]] == ["text", "tool_call", "tool_result", "user_message", "text"]
    assert reply["parts"][3]["message_id"] == steered["id"]
    assert await socket.catch_up() == []

    model.reply("Fine.")
    await socket.reply("And now?")
    assert await told(model, 2) == [*await told(model, 1), ("assistant", "In red, then."), ("user", "And now?")]


async def test_what_comes_too_late_to_steer_is_answered_right_after(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket, calls=False)
    model.reply("The red one it is.")
    handed = await steer(socket, "The red one", client_message_id="mine")
    gate.set()
    await socket.rest_of(run_id)
    accepted = await socket.expect("message_accepted")
    assert accepted["run_id"] != run_id
    assert (accepted["message_id"], accepted["client_message_id"]) == (handed["message_id"], "mine")
    rest = await socket.rest_of(accepted["run_id"])
    assert text_of(rest) == "The red one it is."
    assert await client.said(session_id) == [
        ("user", "Find it"),
        ("assistant", "Looking. Done."),
        ("user", "The red one"),
        ("assistant", "The red one it is."),
    ]
    events = [event for event in socket.seen if "seq" in event and event["type"] != "session_start"]
    assert_gapless(events)


async def test_in_an_idle_session_steering_is_a_message_like_any_other(client: Client, socket: Socket, session_id: str):
    events = await socket.reply("Hi", when_busy="steer")
    assert types_of(events)[-1] == "post_response_complete"
    assert one(events, "message_accepted")["queued"] is False
    assert len(await client.said(session_id)) == 2


async def test_everything_that_steers_is_taken_in_order_and_what_is_queued_behind_waits_for_the_reply(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    model.reply("Both.")
    model.reply("After.")
    await steer(socket, "One more")
    await socket.send("message", messages=[{"content": "And"}, {"content": "another"}], when_busy="steer")
    assert (await socket.expect("message_accepted"))["run_id"] == run_id
    await socket.say("Later", when_busy="queue")
    later = await socket.expect("message_accepted")
    behind = await steer(socket, "Too far back")
    assert behind["run_id"] not in (run_id, later["run_id"]), "something else comes first"
    gate.set()
    await socket.rest_of(later["run_id"])
    await socket.rest_of(behind["run_id"])

    assert [content for role, content in await told(model, 1) if role == "user"] == [
        "Find it",
        "One more",
        "And",
        "another",
    ]
    assert [content for _, content in await client.said(session_id)] == [
        "Find it",
        "One more",
        "And",
        "another",
        "Looking. Both.",
        "Later",
        "After.",
        "Too far back",
        "Hello there.",
    ]


async def test_a_message_that_steers_is_taken_once_however_often_it_is_sent(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    for _ in range(3):
        await socket.say("The red one", when_busy="steer", client_message_id="mine")
    await socket.answered()
    gate.set()
    await socket.rest_of(run_id)
    await socket.say("The red one", when_busy="steer", client_message_id="mine")
    await socket.catch_up()
    assert [content for role, content in await client.said(session_id) if role == "user"] == ["Find it", "The red one"]


async def test_words_for_another_branch_do_not_steer_this_one(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    first = await socket.reply("One")
    run_id, gate = await begin(model, socket)
    await client.http.patch(
        f"/api/sessions/{session_id}",
        json={"active_message_id": one(first, "assistant_end")["message_id"]},
    )
    # The newest branch through the first reply is the one in which the other is being made.
    accepted = await steer(socket, "Here")
    assert accepted["run_id"] == run_id
    edited = await steer(socket, "Uno", replaces=one(first, "message_accepted")["message_id"])
    assert edited["run_id"] != run_id
    gate.set()
    await socket.rest_of(edited["run_id"])
    assert await client.said(session_id) == [("user", "Uno"), ("assistant", "Hello there.")]


async def test_a_stopped_reply_leaves_what_should_have_steered_it_to_a_reply_of_its_own(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, _ = await begin(model, socket)
    model.reply("Right.")
    await steer(socket, "The red one")
    await socket.send("interrupt")
    await socket.rest_of(run_id)
    accepted = await socket.expect("message_accepted")
    await socket.rest_of(accepted["run_id"])
    assert [content for _, content in await client.said(session_id)] == [
        "Find it",
        "Looking. ",
        "The red one",
        "Right.",
    ]


async def test_a_reply_that_is_stopped_after_it_took_words_stands_behind_them(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    model.script(Text("In r"), Hang())
    await steer(socket, "The red one")
    gate.set()
    await socket.expect("message_taken")
    await socket.expect("text_delta")
    await socket.send("interrupt")
    await socket.rest_of(run_id)
    assert [content for _, content in await client.said(session_id)] == ["Find it", "The red one", "Looking. In r"]
    await socket.reply("Go on")
    roles = [role for role, _ in await told(model, 2)]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user"]


async def test_a_further_reply_to_words_that_steered_sees_them_in_their_own_place(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    await steer(socket, "The red one")
    gate.set()
    end = one(await socket.rest_of(run_id), "assistant_end")
    model.reply("Anew.")
    await socket.send("regenerate", message_id=end["message_id"])
    await socket.run()
    assert await told(model, 2) == [("user", "Find it"), ("user", "The red one")]
    assert [content for _, content in await client.said(session_id)] == ["Find it", "The red one", "Anew."]


@pytest.mark.parametrize("calls", [True, False])
async def test_over_rest_the_answer_is_that_of_the_run_that_took_the_words(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, calls: bool
):
    run_id, gate = await begin(model, socket, calls=calls)
    model.reply("In red, then.")
    path = f"/api/sessions/{session_id}/messages"
    body = {"content": "The red one", "when_busy": "steer", "client_message_id": "mine"}
    sending = asyncio.create_task(client.http.post(path, json=body))
    await socket.expect("message_accepted")
    gate.set()
    answer = (await sending).json()

    assert answer["user_message"]["content"] == "The red one"
    assert answer["message"]["content"].endswith("In red, then.")
    assert (answer["run_id"] == run_id) is calls
    again: httpx2.Response = await client.http.post(path, json=body)
    assert again.json() == answer
    runs = (await client.http.get(f"/api/sessions/{session_id}/runs")).json()["items"]
    assert ["steered" in str(run["finish_reason"]) for run in runs] == [calls, False]


async def test_words_that_were_accepted_outlive_the_service(opened: Opened, model: OpenAIFake):
    async with opened(timeouts={"drain": 0.1}) as client:
        session_id = await client.session(forget=False)
        socket = await client.open(session_id)
        await begin(model, socket)
        await steer(socket, "The red one")
    model.reply("Here I am.")
    async with opened() as client:

        async def is_answered() -> bool:
            return len(await client.said(session_id)) == 4

        await eventually(is_answered, 15)
        assert [content for _, content in await client.said(session_id)] == [
            "Find it",
            "Looking. ",
            "The red one",
            "Here I am.",
        ]


async def test_a_model_that_fails_after_it_was_steered_costs_one_error_and_no_words(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    run_id, gate = await begin(model, socket)
    model.script(Text("In"), Cut())
    await steer(socket, "The red one")
    gate.set()
    rest = await socket.rest_of(run_id)
    assert one(rest, "assistant_end")["finish_reason"] == "error"
    assert [content for _, content in await client.said(session_id)] == ["Find it", "The red one", "Looking. In"]
