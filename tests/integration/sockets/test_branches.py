"""Answering once more, saying it differently, and going back: the tree of a session under all that may happen to it."""

import asyncio
import random
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text, Wait, call
from tests.integration.sockets.client import Client, Event, Socket, assert_gapless, one, sha256, text_of, types_of
from tests.integration.sockets.conftest import Opened, Stranger
from tests.integration.sockets.mirror import Mirror
from tests.waiting import eventually


async def tree(client: Client, session_id: str) -> dict[str, dict[str, Any]]:
    """Every message of the session, of all branches, by id."""
    answer = await client.http.get(f"/api/sessions/{session_id}/messages", params={"limit": 100, "all": True})
    return {message["id"]: message for message in answer.json()["items"]}


async def switch(client: Client, session_id: str, message_id: str) -> dict[str, Any]:
    answer = await client.http.patch(f"/api/sessions/{session_id}", json={"active_message_id": message_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


def asked(events: list[Event]) -> str:
    return one(events, "message_accepted")["message_id"]


def answered(events: list[Event]) -> str:
    return one(events, "assistant_end")["message_id"]


# --- regenerate -------------------------------------------------------------------------------------------------------


async def test_another_reply_stands_beside_the_old_one_and_is_seen(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.reply("First try.")
    model.reply("Second try.")
    first = await socket.reply("Hi")
    await socket.send("regenerate", message_id=answered(first))
    second = await socket.run()
    assert types_of(second)[:2] == ["message_accepted", "stage_update"]
    assert asked(second) == asked(first)
    assert text_of(second) == "Second try."
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Second try.")]
    everything = await tree(client, session_id)
    assert {one["parent_id"] for one in everything.values() if one["role"] == "assistant"} == {asked(first)}
    assert [message["content"] for message in (await model.request(1)).body["messages"]] == ["Hi"]


async def test_a_message_may_be_named_instead_of_its_reply(client: Client, socket: Socket, session_id: str):
    first = await socket.reply("Hi")
    await socket.send("regenerate", message_id=asked(first))
    second = await socket.run()
    assert asked(second) == asked(first)
    assert len(await tree(client, session_id)) == 3


async def test_what_was_asked_for_with_a_message_holds_for_its_next_reply_too(model: OpenAIFake, socket: Socket):
    first = await socket.reply("Hi", model="special", controls={"temperature": 0.1, "seed": 4})
    await socket.send("regenerate", message_id=answered(first), controls={"temperature": 0.9})
    await socket.run()
    body = (await model.request(1)).body
    assert (body["model"], body["temperature"], body["seed"]) == ("special", 0.9, 4)


async def test_several_turns_are_answered_together_once_more(model: OpenAIFake, socket: Socket, client: Client):
    await socket.send("message", messages=[{"content": "One"}, {"content": "Two"}])
    first = await socket.run()
    await socket.send("regenerate", message_id=answered(first))
    await socket.run()
    assert [message["content"] for message in (await model.request(1)).body["messages"]] == ["One", "Two"]


async def test_regenerating_far_back_leaves_out_what_came_later(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    first = await socket.reply("One")
    await socket.reply("Two")
    model.reply("Otherwise.")
    await socket.send("regenerate", message_id=answered(first))
    await socket.run()
    assert await client.said(session_id) == [("user", "One"), ("assistant", "Otherwise.")]
    assert len(await tree(client, session_id)) == 5


async def test_the_same_request_sent_again_makes_no_third_reply(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    first = await socket.reply("Hi")
    for _ in range(3):
        await socket.send("regenerate", message_id=answered(first), client_message_id="again-1")
    await socket.run()
    await socket.catch_up()
    assert len(await tree(client, session_id)) == 3
    await socket.send("regenerate", message_id=asked(first), client_message_id="again-1", controls={"seed": 1})
    await socket.refused("conflict")
    await socket.say("Something else", client_message_id="again-1")
    await socket.refused("conflict")


async def test_a_reply_that_is_still_coming_can_be_asked_for_anew(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Slow"), Hang())
    model.reply("Quick.")
    await socket.say("Hi")
    start = await socket.expect("assistant_start")
    await socket.expect("text_delta")
    await socket.send("regenerate", message_id=start["message_id"])
    second = await socket.run()
    assert text_of(second) == "Quick."
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Quick.")]
    replies = [one for one in (await tree(client, session_id)).values() if one["role"] == "assistant"]
    assert sorted((one["content"], one["finish_reason"]) for one in replies) == [
        ("Quick.", "stop"),
        ("Slow", "interrupted"),
    ]


async def test_of_two_further_replies_at_once_both_are_kept_and_the_last_is_seen(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    first = await socket.reply("Hi")
    for word in ("B", "C"):
        model.reply(word)
    for _ in range(2):
        await socket.send("regenerate", message_id=answered(first), when_busy="queue")
    runs = [(await socket.expect("message_accepted"))["run_id"] for _ in range(2)]
    rest = await socket.rest_of(runs[1])
    assert text_of(rest) == "C"
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "C")]
    assert len(await tree(client, session_id)) == 4


async def test_a_message_behind_a_further_reply_follows_that_reply(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    first = await socket.reply("One")
    model.script(Text("Otherwise"), Wait(go_on))
    model.reply("Well.")
    await socket.send("regenerate", message_id=answered(first))
    await socket.expect("text_delta")
    await socket.say("Two", when_busy="queue")
    accepted = await socket.expect("message_accepted")
    assert await client.said(session_id) == [("user", "One"), ("user", "Two")]
    go_on.set()
    await socket.rest_of(accepted["run_id"])
    assert await client.said(session_id) == [
        ("user", "One"),
        ("assistant", "Otherwise"),
        ("user", "Two"),
        ("assistant", "Well."),
    ]
    old = (await tree(client, session_id))[answered(first)]
    assert old["siblings"] == {"count": 2, "index": 1, "previous": None, "next": old["siblings"]["next"]}


async def test_a_message_that_was_never_answered_keeps_what_was_said_after_it(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    # A queued message that is stopped gets no reply; the next one stands right behind it.
    go_on = asyncio.Event()
    model.script(Text("Reply 1"), Wait(go_on))
    await socket.say("One")
    await socket.expect("text_delta")
    await socket.say("Two", when_busy="queue")
    second = await socket.expect("message_accepted")
    await socket.say("Three", when_busy="queue")
    third = await socket.expect("message_accepted")
    await socket.send("interrupt", run_id=second["run_id"])
    await socket.expect("assistant_end", run_id=second["run_id"])
    go_on.set()
    await socket.rest_of(third["run_id"])
    before = await client.said(session_id)
    assert [content for _, content in before] == ["One", "Reply 1", "Two", "Three", "Hello there."]

    model.reply("Answer to two")
    await socket.send("regenerate", message_id=second["message_id"])
    await socket.run()

    assert [content for _, content in await client.said(session_id)] == ["One", "Reply 1", "Two", "Answer to two"]
    await switch(client, session_id, third["message_id"])
    assert await client.said(session_id) == before


async def test_a_further_reply_that_was_stopped_before_it_began_shows_the_old_one_again(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    first = await socket.reply("One")
    model.script(Text("Slow"), Wait(go_on))
    await socket.say("Two")
    await socket.expect("text_delta")
    await socket.send("regenerate", message_id=answered(first), when_busy="queue")
    accepted = await socket.expect("message_accepted", queued=True)
    assert await client.said(session_id) == [("user", "One")]
    await socket.send("interrupt", run_id=accepted["run_id"])
    updated = await socket.expect("session_updated")
    session = (await client.http.get(f"/api/sessions/{session_id}")).json()
    assert updated["active_message_id"] == session["active_message_id"]
    assert [content for _, content in await client.said(session_id)] == ["One", "Hello there.", "Two"]
    go_on.set()
    await socket.expect("assistant_end")
    assert (await client.said(session_id))[-1] == ("assistant", "Slow")


# --- edit -------------------------------------------------------------------------------------------------------------


async def test_an_edit_begins_a_branch_and_the_old_one_stays_whole(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    await socket.reply("One")
    second = await socket.reply("Two")
    await socket.reply("Three")
    before = await client.history(session_id)
    model.reply("Two and a half.")
    edited = await socket.reply("Two!", replaces=asked(second))

    assert await client.said(session_id) == [
        ("user", "One"),
        ("assistant", "Hello there."),
        ("user", "Two!"),
        ("assistant", "Two and a half."),
    ]
    sent = (await model.request(3)).body["messages"]
    assert [message["content"] for message in sent] == ["One", "Hello there.", "Two!"]
    new = (await tree(client, session_id))[asked(edited)]
    assert new["siblings"] == {"count": 2, "index": 2, "previous": asked(second), "next": None}

    await switch(client, session_id, asked(second))
    after = await client.history(session_id)
    assert [message["id"] for message in after] == [message["id"] for message in before]


async def test_the_first_message_can_be_edited_too(client: Client, session_id: str, socket: Socket):
    first = await socket.reply("One")
    edited = await socket.reply("Uno", replaces=asked(first))
    history = await client.history(session_id)
    assert [message["content"] for message in history] == ["Uno", "Hello there."]
    assert history[0]["parent_id"] is None
    assert history[0]["siblings"]["previous"] == asked(first)
    assert history[0]["id"] == asked(edited)


async def test_editing_what_is_being_answered_stops_that_and_keeps_it(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Half"), Hang())
    model.reply("Whole.")
    await socket.say("Hi")
    first = await socket.expect("message_accepted")
    await socket.expect("text_delta")
    edited = await socket.reply("Hi!", replaces=first["message_id"])
    assert text_of(edited) == "Whole."
    assert await client.said(session_id) == [("user", "Hi!"), ("assistant", "Whole.")]
    await switch(client, session_id, first["message_id"])
    assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Half")]


async def test_a_message_that_waits_can_be_edited_and_both_stand_behind_the_reply(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("Reply 1"), Wait(go_on))
    model.reply("Reply 2")
    model.reply("Reply 2b")
    await socket.say("One")
    await socket.expect("text_delta")
    await socket.say("Two", when_busy="queue")
    second = await socket.expect("message_accepted")
    await socket.say("Two b", when_busy="queue", replaces=second["message_id"])
    edited = await socket.expect("message_accepted")
    go_on.set()
    await socket.rest_of(edited["run_id"])
    assert [content for _, content in await client.said(session_id)] == ["One", "Reply 1", "Two b", "Reply 2b"]
    await switch(client, session_id, second["message_id"])
    assert [content for _, content in await client.said(session_id)] == ["One", "Reply 1", "Two", "Reply 2"]


async def test_what_cannot_be_edited_or_answered_is_said_and_changes_nothing(
    client: Client, session_id: str, socket: Socket, stranger: Stranger
):
    first = await socket.reply("Hi")
    other_session = await client.session()
    other = await (await client.open(other_session)).reply("Elsewhere")
    seq = await client.newest_seq(session_id)
    for foreign in (asked(other), answered(other), str(uuid4()), stranger.session_id):
        await socket.send("regenerate", message_id=foreign)
        assert (await socket.refused("not_found"))["details"] == {"field": "message_id"}
        await socket.say("Hi", replaces=foreign)
        assert (await socket.refused("not_found"))["details"] == {"field": "replaces"}
    await socket.say("Hi", replaces=answered(first))
    assert (await socket.refused("invalid_request"))["details"] == {"field": "replaces"}
    await socket.send("regenerate", message_id="nonsense")
    await socket.refused("invalid_frame")
    await socket.send("regenerate")
    await socket.refused("invalid_frame")
    await socket.send("regenerate", message_id=answered(first), when_busy="reject", controls={"nonsense": 1})
    await socket.refused("unknown_control")
    assert await client.newest_seq(session_id) == seq
    assert len(await tree(client, session_id)) == 2


async def test_what_a_persona_says_first_answers_nothing(client: Client):
    persona = await client.persona(name=f"Ada {uuid4()}", first_message="Good morning.")
    session_id = await client.session(persona_id=persona)
    socket = await client.open(session_id)
    (greeting,) = await client.history(session_id)
    await socket.send("regenerate", message_id=greeting["id"])
    await socket.refused("invalid_request")


# --- switching --------------------------------------------------------------------------------------------------------


async def test_switching_while_a_reply_runs_leaves_it_where_it_is(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    first = await socket.reply("One")
    model.script(Text("Other"), Wait(go_on))
    await socket.send("regenerate", message_id=answered(first))
    accepted = await socket.expect("message_accepted")
    await socket.expect("text_delta")

    await switch(client, session_id, answered(first))
    assert (await socket.expect("session_updated"))["active_message_id"] == answered(first)
    go_on.set()
    rest = await socket.rest_of(accepted["run_id"])
    assert [content for _, content in await client.said(session_id)] == ["One", "Hello there."]

    await switch(client, session_id, answered(rest))
    assert [content for _, content in await client.said(session_id)] == ["One", "Other"]


async def test_switching_back_to_where_a_reply_is_coming_shows_it_when_it_is_there(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    first = await socket.reply("One")
    model.script(Text("Other"), Wait(go_on))
    await socket.send("regenerate", message_id=answered(first))
    accepted = await socket.expect("message_accepted")
    await socket.expect("text_delta")
    await switch(client, session_id, answered(first))
    session = await switch(client, session_id, asked(first))
    assert session["active_message_id"] == asked(first)
    go_on.set()
    await socket.rest_of(accepted["run_id"])
    assert [content for _, content in await client.said(session_id)] == ["One", "Other"]


async def test_a_message_in_another_branch_does_not_wait_for_the_reply_in_this_one(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    first = await socket.reply("One")
    model.script(Text("Other"), Wait(go_on))
    await socket.send("regenerate", message_id=answered(first))
    await socket.expect("text_delta")
    await switch(client, session_id, answered(first))
    await socket.say("Two", when_busy="queue")
    accepted = await socket.expect("message_accepted", queued=True)
    go_on.set()
    await socket.rest_of(accepted["run_id"])
    assert [content for _, content in await client.said(session_id)] == ["One", "Hello there.", "Two", "Hello there."]


async def test_a_session_may_be_deleted_while_another_reply_is_being_made(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    first = await socket.reply("Hi")
    model.script(Text("Other"), Hang())
    await socket.send("regenerate", message_id=answered(first))
    await socket.expect("text_delta")
    assert (await client.http.delete(f"/api/sessions/{session_id}")).status_code == 204
    await socket.closed()
    request = await model.request(1)
    await asyncio.wait_for(request.closed, 5)


# --- all of it at once ------------------------------------------------------------------------------------------------


class Chaos:
    """Somebody who does everything at once, and knows what must be true after it."""

    def __init__(self, client: Client, socket: Socket, session_id: str, model: OpenAIFake, seed: int) -> None:
        self.client, self.socket, self.session_id, self.model = client, socket, session_id, model
        self.dice = random.Random(seed)
        self.said: list[str] = []
        self.gates: list[asyncio.Event] = []

    async def step(self) -> None:
        """Do something."""
        if self.dice.random() < 0.4:
            gate = asyncio.Event()
            self.gates.append(gate)
            last = self.dice.choice([Text("end"), call(0, "no_such_tool", {})])
            self.model.script(Text("slow "), Wait(gate), last)
        everything = list((await tree(self.client, self.session_id)).values())
        mine = [message["id"] for message in everything if message["role"] == "user"]
        busy = self.dice.choice(["queue", "queue", "interrupt"])
        manner = self.dice.choice([busy, "steer"])
        match self.dice.choice(["say", "say", "edit", "again", "again", "switch", "stop", "let go"]):
            case "say":
                await self._say(when_busy=manner)
            case "edit" if mine:
                await self._say(when_busy=manner, replaces=self.dice.choice(mine))
            case "again" if everything:
                message_id = self.dice.choice(everything)["id"]
                await self.socket.send("regenerate", message_id=message_id, when_busy=busy)
            case "switch" if everything:
                await switch(self.client, self.session_id, self.dice.choice(everything)["id"])
            case "stop":
                await self.socket.send("interrupt")
            case _:
                for gate in self.gates:
                    gate.set()

    async def settle(self) -> None:
        """Wait until nothing runs any more."""
        await self.socket.answered()
        for gate in self.gates:
            gate.set()

        async def is_idle() -> bool:
            running = await self.client.http.get(f"/api/sessions/{self.session_id}/messages?limit=1")
            session = await self.client.http.get(f"/api/sessions/{self.session_id}")
            return running.json()["seq"] == session.json()["seq"]

        await eventually(is_idle, 20)
        await self.socket.catch_up()

    async def _say(self, **fields: Any) -> None:
        content = f"message {len(self.said)}"
        self.said.append(content)
        await self.socket.say(content, **fields)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_done_the_tree_is_sound_and_the_events_tell_all_of_it(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, seed: int
):
    chaos = Chaos(client, socket, session_id, model, seed)
    mirrors: list[tuple[Mirror, int]] = []
    for _ in range(14):
        mirrors.append(await Mirror.of(client, session_id))
        await chaos.step()
    await chaos.settle()

    everything = await tree(client, session_id)
    mine = {message["content"]: message for message in everything.values() if message["role"] == "user"}
    assert sorted(mine) == sorted(chaos.said)
    events = [event for event in socket.seen if "seq" in event and event["type"] != "session_start"]
    assert_gapless(events)
    accepted: dict[str, str] = {}
    for event in events:
        if event["type"] == "message_accepted":
            accepted.setdefault(event["run_id"], event["message_id"])
        elif event["type"] == "message_taken":
            accepted[event["run_id"]] = event["message_id"]
    ends = [event for event in events if event["type"] == "assistant_end"]
    assert sorted(event["run_id"] for event in ends) == sorted(accepted)
    for end in ends:
        if end["message_id"] is not None:
            reply = everything[end["message_id"]]
            assert reply["parent_id"] == accepted[end["run_id"]], "a reply stands behind what it answers"
            assert sha256(reply["content"]) == end["text_sha256"]

    def path(message: dict[str, Any]) -> list[dict[str, Any]]:
        parent = everything.get(message["parent_id"])
        return [*(path(parent) if parent else []), message]

    for request in model.requests:
        given = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
        before = path(mine[given[-1]])
        assert given == [message["content"] for message in before if message["role"] == "user"]
    session = (await client.http.get(f"/api/sessions/{session_id}")).json()
    replies = {id: message["content"] for id, message in everything.items() if message["role"] == "assistant"}
    for mirror, seq in mirrors:
        mirror.hear([event for event in events if event["seq"] > seq])
        assert (mirror.active, mirror.replies) == (session["active_message_id"], replies)


async def test_branches_survive_a_restart(opened: Opened, model: OpenAIFake):
    async with opened() as client:
        session_id = await client.session(forget=False)
        socket = await client.open(session_id)
        first = await socket.reply("Hi")
        await socket.send("regenerate", message_id=answered(first))
        await socket.run()
        before = await tree(client, session_id)
    async with opened() as client:
        assert await tree(client, session_id) == before
        await switch(client, session_id, answered(first))
        assert await client.said(session_id) == [("user", "Hi"), ("assistant", "Hello there.")]
