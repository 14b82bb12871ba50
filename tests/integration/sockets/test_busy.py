"""Messages that meet a running reply, words that stop one, and words that are said twice."""

import asyncio
import random
from collections import Counter
from uuid import uuid4

import pytest

from services.context.items import INTERRUPTED_NOTE
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Cut, Hang, Headers, Status, Text, Thinking, Wait, call
from tests.integration.sockets.client import (
    Client,
    Socket,
    assert_gapless,
    is_last,
    one,
    sha256,
    text_of,
    types_of,
)
from tests.integration.sockets.conftest import Opened, Stranger
from tests.waiting import eventually


async def begin(socket: Socket, content: str = "First") -> str:
    """Send a message and return its run once the reply has begun to show."""
    await socket.say(content)
    return (await socket.expect("text_delta"))["run_id"]


def endings(events: list[dict[str, object]]) -> Counter[object]:
    return Counter(event["run_id"] for event in events if event["type"] == "assistant_end")


# --- interrupts -----------------------------------------------------------------------------------------------------


async def test_an_interrupt_keeps_what_was_shown_and_ends_the_run(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Hel"), Hang())
    run_id = await begin(socket)
    await socket.send("interrupt")
    rest = await socket.rest_of(run_id)
    assert types_of(rest) == ["interrupted", "assistant_end"]
    interrupted, end = rest
    assert (interrupted["phase"], interrupted["by"]) == ("streaming", "user")
    assert interrupted["elapsed_ms"] < 1000
    assert (end["finish_reason"], end["text_sha256"]) == ("interrupted", sha256("Hel"))
    reply = (await client.history(session_id))[1]
    assert (reply["content"], reply["finish_reason"], reply["id"]) == ("Hel", "interrupted", end["message_id"])
    assert await socket.catch_up() == []
    request = await model.request()
    async with asyncio.timeout(5):
        await request.closed
    assert request.ended_by == "client"


async def test_an_interrupt_before_the_first_token_closes_the_models_connection(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    for number, steps in enumerate([(Hang(),), (Headers(), Hang())]):
        model.script(*steps)
        await socket.say("Hi")
        run_id = (await socket.expect("assistant_start"))["run_id"]
        request = await model.request(number)
        await socket.send("interrupt", run_id=run_id)
        interrupted, end = await socket.rest_of(run_id)
        assert interrupted["phase"] == "waiting"
        assert (end["finish_reason"], end["text_sha256"]) == ("interrupted", sha256(""))
        async with asyncio.timeout(5):
            await request.closed
        assert request.ended_by == "client"
    assert [role for role, _ in await client.said(session_id)].count("user") == 2


async def test_an_interrupt_while_a_failed_call_waits_to_be_made_again_is_heard(
    model: OpenAIFake, socket: Socket, client: Client
):
    model.script(Status(429, headers={"retry-after": "9"}))
    await socket.say("Hi")
    run_id = (await socket.expect("assistant_start"))["run_id"]
    await (await model.request()).closed
    await socket.send("interrupt")
    interrupted, end = await socket.rest_of(run_id)
    assert (interrupted["phase"], end["finish_reason"]) == ("waiting", "interrupted")
    assert interrupted["elapsed_ms"] < 1000


async def test_a_reply_that_fell_silent_is_still_streaming(model: OpenAIFake, socket: Socket):
    model.script(Thinking("Hmm"), Hang())
    await socket.say("Hi")
    run_id = (await socket.expect("thinking_delta"))["run_id"]
    await socket.answered()
    await socket.send("interrupt")
    assert (await socket.rest_of(run_id))[0]["phase"] == "streaming"


async def test_an_interrupt_right_behind_its_message_ends_the_run_once(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    for i in range(10):
        await socket.say(f"Message {i}")
        await socket.send("interrupt")
        accepted = await socket.expect("message_accepted")
        rest = await socket.rest_of(accepted["run_id"])
        assert endings(rest) == {accepted["run_id"]: 1}
        assert rest[-1]["finish_reason"] == "interrupted"
        assert [event["type"] for event in rest].count("interrupted") == 1
    assert [content for role, content in await client.said(session_id) if role == "user"] == [
        f"Message {i}" for i in range(10)
    ]
    model.reply("Still here")
    assert text_of(await socket.reply("And now?")) in ("Still here", "Hello there.")


async def test_a_second_interrupt_changes_nothing(client: Client, model: OpenAIFake, session_id: str, socket: Socket):
    model.script(Text("Hel"), Hang())
    run_id = await begin(socket)
    await socket.send("interrupt")
    await socket.send("interrupt", run_id=run_id)
    rest = await socket.rest_of(run_id)
    await socket.send("interrupt", run_id=run_id)
    await socket.send("interrupt")
    after = await socket.answered()
    assert [event["code"] for event in after if event["type"] == "error"][-2:] == ["nothing_running"] * 2
    told = [event for event in [*rest, *after] if "seq" in event]
    assert types_of(told) == ["interrupted", "assistant_end"]
    assert await socket.catch_up() == []


async def test_nothing_to_interrupt_is_an_error(socket: Socket):
    await socket.send("interrupt")
    await socket.refused("nothing_running")


async def test_a_run_of_somebody_else_or_of_another_session_cannot_be_stopped(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, stranger: Stranger
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    other = await client.open(await client.session())
    run_id = await begin(other)
    for foreign in (run_id, stranger.run_id, str(uuid4())):
        await socket.send("interrupt", run_id=foreign)
        error = await socket.refused("not_found")
        assert error["details"] == {"field": "run_id"}
    go_on.set()
    rest = await other.rest_of(run_id)
    assert one(rest, "assistant_end")["finish_reason"] == "stop"


async def test_the_other_tab_may_interrupt(client: Client, model: OpenAIFake, session_id: str, socket: Socket):
    model.script(Text("Hel"), Hang())
    run_id = await begin(socket)
    other = await client.open(session_id)
    await other.send("interrupt")
    assert types_of(await socket.rest_of(run_id)) == ["interrupted", "assistant_end"]


async def test_the_model_is_told_that_its_reply_was_stopped(model: OpenAIFake, socket: Socket):
    model.script(Text("Once upon"), Hang())
    run_id = await begin(socket)
    await socket.send("interrupt")
    await socket.rest_of(run_id)
    await socket.reply("Shorter, please")
    messages = (await model.request(1)).body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == f"Once upon\n\n{INTERRUPTED_NOTE}"


async def test_an_interrupted_tool_loop_leaves_a_session_that_goes_on(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Looking. "), call(0, "no_such_tool", {}))
    model.script(Hang())
    await socket.say("Hi")
    run_id = (await socket.expect("tool_done"))["run_id"]
    await model.request(1)
    await socket.send("interrupt")
    rest = await socket.rest_of(run_id)
    assert types_of(rest) == ["interrupted", "assistant_end"]
    assert types_of(await socket.reply("Go on"))[-1] == "post_response_complete"


# --- a message while a reply runs -------------------------------------------------------------------------------------


async def test_a_new_message_stops_the_reply_and_is_answered_after_it(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Once upon a"), Hang())
    model.reply("Fine.")
    first = await begin(socket)
    await socket.say("Stop that")
    accepted = await socket.expect("message_accepted")
    assert accepted["queued"] is True
    events = await socket.rest_of(accepted["run_id"])
    told = [event for event in socket.seen if "seq" in event and event["type"] != "session_start"]
    assert_gapless(told)
    ended = [event for event in told if event["run_id"] == first][-2:]
    assert types_of(ended) == ["interrupted", "assistant_end"]
    assert ended[0]["by"] == "message"
    assert ended[1]["seq"] < events[0]["seq"]
    assert text_of(events) == "Fine."
    assert await client.said(session_id) == [
        ("user", "First"),
        ("assistant", "Once upon a"),
        ("user", "Stop that"),
        ("assistant", "Fine."),
    ]
    messages = (await model.request(1)).body["messages"]
    assert [message["content"] for message in messages] == [
        "First",
        f"Once upon a\n\n{INTERRUPTED_NOTE}",
        "Stop that",
    ]


async def test_queued_messages_are_each_answered_in_order_and_see_only_what_stands_before_them(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Reply 0"), Wait(go_on))
    for i in range(1, 6):
        model.reply(f"Reply {i}")
    runs = [await begin(socket, "Message 0")]
    for i in range(1, 6):
        await socket.say(f"Message {i}", when_busy="queue")
        accepted = await socket.expect("message_accepted")
        assert accepted["queued"] is True
        runs.append(accepted["run_id"])
    assert [content for _, content in await client.said(session_id)] == [f"Message {i}" for i in range(6)]
    go_on.set()
    for run_id in runs:
        assert (await socket.rest_of(run_id))[-1]["type"] == "post_response_complete"

    expected = [f"{word} {i}" for i in range(6) for word in ("Message", "Reply")]
    assert [content for _, content in await client.said(session_id)] == expected
    for i in range(6):
        messages = (await model.request(i)).body["messages"]
        assert [message["content"] for message in messages] == expected[: 2 * i + 1]
    told = [event for event in socket.seen if "seq" in event and event["type"] != "session_start"]
    assert_gapless(told)
    assert endings(told) == dict.fromkeys(runs, 1)


async def test_the_second_of_two_queued_messages_stays_in_place_when_the_first_fails(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Reply 0"), Wait(go_on))
    model.script(Text("Half"), Cut())
    model.reply("Reply 2")
    runs = [await begin(socket, "Message 0")]
    for i in (1, 2):
        await socket.say(f"Message {i}", when_busy="queue")
        runs.append((await socket.expect("message_accepted"))["run_id"])
    go_on.set()
    for run_id in runs:
        await socket.rest_of(run_id)
    assert [content for _, content in await client.said(session_id)] == [
        "Message 0",
        "Reply 0",
        "Message 1",
        "Half",
        "Message 2",
        "Reply 2",
    ]


async def test_an_interrupt_stops_the_running_reply_and_the_queue_goes_on(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Once upon"), Hang())
    model.reply("Reply 1")
    first = await begin(socket)
    await socket.say("Message 1", when_busy="queue")
    second = (await socket.expect("message_accepted"))["run_id"]
    await socket.send("interrupt")
    assert (await socket.rest_of(first))[-1]["finish_reason"] == "interrupted"
    assert text_of(await socket.rest_of(second)) == "Reply 1"


async def test_a_queued_message_can_be_stopped_before_its_turn(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Reply 0"), Wait(go_on))
    model.reply("Reply 2")
    first = await begin(socket, "Message 0")
    runs: list[str] = []
    for i in (1, 2):
        await socket.say(f"Message {i}", when_busy="queue")
        runs.append((await socket.expect("message_accepted"))["run_id"])
    await socket.send("interrupt", run_id=runs[0])
    interrupted, end = await socket.rest_of(runs[0])
    assert (interrupted["type"], interrupted["phase"]) == ("interrupted", "composing")
    assert (end["finish_reason"], end["message_id"]) == ("interrupted", None)
    assert end["text_sha256"] == sha256("")
    await socket.send("interrupt", run_id=runs[0])
    await socket.refused("nothing_running")
    go_on.set()
    assert one(await socket.rest_of(first), "assistant_end")["finish_reason"] == "stop"
    assert text_of(await socket.rest_of(runs[1])) == "Reply 2"
    assert [content for _, content in await client.said(session_id)] == [
        "Message 0",
        "Reply 0",
        "Message 1",
        "Message 2",
        "Reply 2",
    ]
    assert len(model.requests) == 2


async def test_reject_refuses_and_stores_nothing(client: Client, model: OpenAIFake, session_id: str, socket: Socket):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    run_id = await begin(socket)
    await socket.say("Now", when_busy="reject", client_message_id="again")
    error = await socket.refused("session_busy")
    assert error["details"] == {"active_run": run_id}
    assert error["retryable"]
    assert error["resend_safe"]
    go_on.set()
    rest = await socket.rest_of(run_id)
    assert text_of(rest) == "lo"
    assert await client.said(session_id) == [("user", "First"), ("assistant", "Hello")]
    assert (await socket.reply("Now", when_busy="reject", client_message_id="again"))[0]["queued"] is False


async def test_the_queue_has_an_end(model: OpenAIFake, opened: Opened):
    model.script(Text("Hel"), Hang())
    async with opened(limits={"queued_per_session": 2}) as client:
        session_id = await client.session()
        socket = await client.open(session_id)
        await begin(socket)
        for i in range(2):
            await socket.say(f"Queued {i}", when_busy="queue")
            await socket.expect("message_accepted")
        await socket.say("One too many", when_busy="queue")
        error = await socket.refused("too_many_requests")
        assert error["details"]["retry_after"] > 0
        assert [content for _, content in await client.said(session_id)] == ["First", "Queued 0", "Queued 1"]


async def test_replies_at_once_have_a_limit(model: OpenAIFake, opened: Opened):
    model.script(Text("Hel"), Hang())
    async with opened(limits={"runs_per_user": 1}) as client:
        socket = await client.open(await client.session())
        run_id = await begin(socket)
        other = await client.open(await client.session())
        await other.say("Me too")
        error = await other.refused("too_many_requests")
        assert error["details"]["retry_after"] > 0
        await socket.send("interrupt")
        await socket.rest_of(run_id)
        assert types_of(await other.reply("Now?"))[-1] == "post_response_complete"


async def test_at_the_limit_of_replies_a_new_message_can_still_replace_the_old_one(model: OpenAIFake, opened: Opened):
    model.script(Text("Hel"), Hang())
    async with opened(limits={"runs_per_user": 1}) as client:
        socket = await client.open(await client.session())
        await begin(socket)
        events = await socket.reply("Instead")
        assert text_of(events) == "Hello there."


async def test_two_tabs_that_send_at_once_are_both_answered_in_one_order(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    other = await client.open(session_id)
    for i in range(5):
        await asyncio.gather(
            *(tab.say(f"{name} {i}", when_busy="queue") for tab, name in ((socket, "left"), (other, "right")))
        )
        for _ in range(2):
            await socket.expect("post_response_complete")
            await other.expect("post_response_complete")
    told = [event for event in socket.seen if "seq" in event and event["type"] != "session_start"]
    assert_gapless(told)
    assert [event for event in other.seen if "seq" in event and event["type"] != "session_start"] == told
    roles = [role for role, _ in await client.said(session_id)]
    assert roles == ["user", "assistant"] * 10
    assert set(endings(told).values()) == {1}


async def test_a_hail_of_messages_ends_every_run_once_and_answers_the_last(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Once"), Hang())
    await begin(socket, "Message 0")
    for i in range(1, 8):
        await socket.say(f"Message {i}")
    ended: Counter[object] = Counter()
    while len(ended) < 8:
        frame = await socket.next()
        ended.update([frame["run_id"]] if frame["type"] == "assistant_end" else [])
    assert set(ended.values()) == {1}
    history = await client.said(session_id)
    users = [content for role, content in history if role == "user"]
    assert users == [f"Message {i}" for i in range(8)]
    assert history[1] == ("assistant", "Once")
    assert history[-1] == ("assistant", "Hello there.")


@pytest.mark.parametrize("seed", range(4))
async def test_a_storm_of_messages_and_interrupts_from_two_tabs_keeps_every_promise(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, seed: int
):
    chance = random.Random(seed)
    other = await client.open(session_id)
    for i in range(25):
        model.reply(*(f"{piece} " for piece in range(5)))
        await chance.choice([socket, other]).say(f"Message {i}", when_busy=chance.choice(["interrupt", "queue"]))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            await chance.choice([socket, other]).send("interrupt")
    await asyncio.gather(socket.answered(), other.answered())

    async def is_idle() -> bool:
        return (await client.http.get(f"/api/sessions/{session_id}")).json()["active_run_id"] is None

    await eventually(is_idle, 20)
    for tab in (socket, other):
        await tab.catch_up()
    told, told_to_other = ([event for event in tab.seen if "run_id" in event] for tab in (socket, other))
    assert told == told_to_other
    accepted = [event["run_id"] for event in told if event["type"] == "message_accepted"]
    refused = sum(event["type"] == "error" and event["code"] == "too_many_requests" for event in other.seen)
    refused += sum(event["type"] == "error" and event["code"] == "too_many_requests" for event in socket.seen)
    assert len(accepted) + refused == 25
    assert endings(told) == dict.fromkeys(accepted, 1)
    ended: set[str] = set()
    for event in told:
        assert event["run_id"] not in ended, "something came after the end of a run"
        if is_last(event):
            ended.add(event["run_id"])
    interrupted = {event["run_id"] for event in told if event["type"] == "interrupted"}
    stopped = {event["run_id"] for event in told if event.get("finish_reason") == "interrupted"}
    assert interrupted == stopped
    history = await client.history(session_id)
    assert [message["run_id"] for message in history if message["role"] == "user"] == accepted
    texts = {run_id: text_of([event for event in told if event["run_id"] == run_id]) for run_id in accepted}
    for message in history:
        if message["role"] == "assistant":
            assert message["content"] == texts[message["run_id"]]


# --- the same message twice -------------------------------------------------------------------------------------------


async def test_a_message_sent_twice_on_one_socket_is_one_message(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    for _ in range(3):
        await socket.say("Hi", client_message_id="a")
    events = await socket.run()
    assert await socket.answered() == []
    assert types_of(events).count("message_accepted") == 1
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Hello there.")]
    assert len(model.requests) == 1


async def test_a_message_sent_on_two_sockets_at_once_is_one_message(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    other = await client.open(session_id)
    await asyncio.gather(*(tab.say("Hi", client_message_id="a") for tab in (socket, other)))
    assert await socket.run() == await other.run()
    assert await socket.answered() == await other.answered() == []
    assert len(await client.history(session_id)) == 2
    assert len(model.requests) == 1


async def test_a_retry_on_a_new_socket_is_answered_although_the_run_has_ended(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    events = await socket.reply("Hi", client_message_id="a")
    await socket.connection.close()
    back = await client.open(session_id)
    await back.say("Hi", client_message_id="a")
    accepted = await back.next()
    assert accepted == events[0]
    again = [accepted, *await back.rest_of(accepted["run_id"])]
    assert again == [event for event in events if not event["type"].endswith("_delta")]
    assert await back.answered() == []
    assert len(model.requests) == 1
    assert len(await client.history(session_id)) == 2


async def test_a_retry_on_a_socket_that_came_back_in_mid_reply_tells_nothing_twice(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi", client_message_id="a")
    shown = await socket.until("text_delta")
    position = shown[2]["seq"]
    back = await client.open(session_id, f"after={position}")
    replayed = [await back.next() for _ in shown[3:]]
    go_on.set()
    await socket.rest_of(shown[0]["run_id"])
    assert text_of([*replayed, *await back.rest_of(shown[0]["run_id"])]) == "Hello"
    await back.say("Hi", client_message_id="a")
    later = await back.answered()
    told = Counter(event["seq"] for event in back.seen if "run_id" in event)
    assert max(told.values()) == 1, "an event was told twice on one socket"
    assert "message_accepted" in types_of(later)


async def test_the_same_id_with_other_words_is_a_conflict(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    await socket.reply("Hi", client_message_id="a")
    for fields in (
        {"content": "Bye"},
        {"content": "Hi", "model": "other"},
        {"content": "Hi", "controls": {"seed": 1}},
        {"messages": [{"content": "Hi"}, {"content": "Hi"}]},
    ):
        await socket.send("message", client_message_id="a", **fields)
        error = await socket.refused("conflict")
        assert error["details"]["field"] == "client_message_id"
    assert await socket.answered() == []
    assert len(await client.history(session_id)) == 2
    assert len(model.requests) == 1


async def test_the_same_id_in_another_session_is_another_message(client: Client, socket: Socket):
    await socket.reply("Hi", client_message_id="a")
    other = await client.open(await client.session())
    assert types_of(await other.reply("Hi", client_message_id="a"))[-1] == "post_response_complete"


async def test_a_retry_of_a_queued_message_keeps_its_place(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Reply 0"), Wait(go_on))
    first = await begin(socket, "Message 0")
    await socket.say("Message 1", when_busy="queue", client_message_id="a")
    queued = await socket.expect("message_accepted")
    await socket.say("Message 1", when_busy="queue", client_message_id="a")
    await socket.say("Message 1", when_busy="reject", client_message_id="a")
    await socket.say("Message 1", when_busy="interrupt", client_message_id="a")
    assert await socket.answered() == []
    go_on.set()
    assert one(await socket.rest_of(first), "assistant_end")["finish_reason"] == "stop"
    assert is_last((await socket.rest_of(queued["run_id"]))[-1])
    assert [content for _, content in await client.said(session_id)][2:] == ["Message 1", "Hello there."]


@pytest.mark.parametrize("when_busy", ["interrupt", "queue", "reject"])
async def test_an_idle_session_answers_at_once_whatever_when_busy_says(socket: Socket, when_busy: str):
    events = await socket.reply("Hi", when_busy=when_busy)
    assert events[0]["queued"] is False
    assert events[-1]["type"] == "post_response_complete"
