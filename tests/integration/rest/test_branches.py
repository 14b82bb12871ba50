"""Branches over REST: further replies, edits, and reading one branch or all of them."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem, text_of

SSE = {"accept": "text/event-stream"}


class Thread:
    """A session, and what can be done in it."""

    def __init__(self, http: httpx2.AsyncClient, session_id: str) -> None:
        self.http = http
        self.path = f"/api/sessions/{session_id}"

    async def say(self, content: str, **fields: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.path}/messages", json={"content": content, **fields})
        return answer.raise_for_status().json()

    async def again(self, message_id: str, **fields: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.path}/regenerate", json={"message_id": message_id, **fields})
        return answer.raise_for_status().json()

    async def read(self, **query: Any) -> list[dict[str, Any]]:
        """A page of messages, oldest first."""
        answer = await self.http.get(f"{self.path}/messages", params=query)
        return answer.raise_for_status().json()["items"][::-1]

    async def contents(self, **query: Any) -> list[str]:
        return [message["content"] for message in await self.read(**query)]


@pytest.fixture
def thread(http: httpx2.AsyncClient, session_id: str) -> Thread:
    return Thread(http, session_id)


async def test_another_reply_is_answered_like_a_message(thread: Thread, model: OpenAIFake) -> None:
    for word in ("A", "B", "C"):
        model.reply(word)
    first = await thread.say("Hi")
    second = await thread.again(first["message"]["id"])
    third = await thread.again(first["user_message"]["id"])

    assert set(second) == set(first)
    assert [answer["message"]["content"] for answer in (first, second, third)] == ["A", "B", "C"]
    assert third["user_message"]["id"] == first["user_message"]["id"]
    a, b, c = (answer["message"]["id"] for answer in (first, second, third))
    assert (await thread.http.get(f"/api/messages/{b}")).json()["siblings"] == {
        "count": 3,
        "index": 2,
        "previous": a,
        "next": c,
    }
    (_, shown) = await thread.read()
    assert shown["siblings"] == {"count": 3, "index": 3, "previous": b, "next": None}


async def test_another_reply_streams_like_a_message(thread: Thread, model: OpenAIFake) -> None:
    first = await thread.say("Hi")
    model.reply("Str", "eamed.")
    body = {"message_id": first["message"]["id"], "controls": {"temperature": 0.5}}

    async with events(thread.http, "POST", f"{thread.path}/regenerate", json=body, headers=SSE) as stream:
        told = await stream.rest()

    assert text_of(told) == "Streamed."
    assert told[0].data["message_id"] == first["user_message"]["id"]
    assert (await model.request(1)).body["temperature"] == 0.5


async def test_asking_twice_with_the_same_id_gives_the_same_reply(thread: Thread, model: OpenAIFake) -> None:
    first = await thread.say("Hi")
    gate = asyncio.Event()
    model.script(Text("Once "), Wait(gate), Text("only."))

    both = [asyncio.create_task(thread.again(first["message"]["id"], client_message_id="again")) for _ in range(2)]
    await model.request(1)
    gate.set()
    answers = await asyncio.gather(*both)

    assert answers[0] == answers[1]
    assert answers[0]["message"]["content"] == "Once only."
    assert answers[0]["message"]["siblings"]["count"] == 2


async def test_a_busy_session_may_refuse_another_reply(thread: Thread, model: OpenAIFake) -> None:
    first = await thread.say("Hi")
    gate = asyncio.Event()
    model.script(Text("Slow"), Wait(gate))
    running = asyncio.create_task(thread.say("More"))
    await model.request(1)

    body = {"message_id": first["message"]["id"], "when_busy": "reject"}
    problem(await thread.http.post(f"{thread.path}/regenerate", json=body), 409, "session_busy")
    gate.set()
    await running

    assert await thread.contents(all=True) == ["Hi", "Hello there.", "More", "Slow"]


async def test_an_edit_is_a_message_that_replaces_another(thread: Thread) -> None:
    await thread.say("One")
    second = await thread.say("Two")
    edited = await thread.say("Two!", replaces=second["user_message"]["id"])

    assert await thread.contents() == ["One", "Hello there.", "Two!", "Hello there."]
    assert edited["user_message"]["parent_id"] == second["user_message"]["parent_id"]
    assert edited["user_message"]["siblings"]["previous"] == second["user_message"]["id"]


async def test_a_branch_is_read_by_its_last_message_and_paged_like_any_list(thread: Thread) -> None:
    await thread.say("One")
    second = await thread.say("Two")
    await thread.say("Two!", replaces=second["user_message"]["id"])
    old = second["message"]["id"]

    assert await thread.contents(branch=old) == ["One", "Hello there.", "Two", "Hello there."]
    assert await thread.contents(branch=second["user_message"]["id"]) == ["One", "Hello there.", "Two"]
    page = await thread.http.get(f"{thread.path}/messages", params={"branch": old, "limit": 3})
    rest = await thread.http.get(page.links["next"]["url"])
    assert [message["content"] for message in page.json()["items"]] == ["Hello there.", "Two", "Hello there."]
    assert [message["content"] for message in rest.json()["items"]] == ["One"]
    assert rest.json()["next_cursor"] is None


async def test_all_branches_are_paged_newest_first_each_message_once(thread: Thread) -> None:
    first = await thread.say("One")
    for _ in range(4):
        await thread.again(first["message"]["id"])
    await thread.say("Uno", replaces=first["user_message"]["id"])

    walked: list[dict[str, Any]] = []
    path: str | None = f"{thread.path}/messages?all=true&limit=3"
    while path:
        page = await thread.http.get(path)
        walked += page.json()["items"]
        path = page.links["next"]["url"] if "next" in page.links else None

    ids = [message["id"] for message in walked]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 8
    assert {message["siblings"]["count"] for message in walked if message["content"] == "Hello there."} == {1, 5}
    assert {message["siblings"]["count"] for message in walked if message["content"] in ("One", "Uno")} == {2}


async def test_switching_goes_to_the_newest_end_of_the_branch(thread: Thread) -> None:
    first = await thread.say("One")
    old_end = await thread.say("Two")
    await thread.again(first["message"]["id"])

    session = await thread.http.patch(thread.path, json={"active_message_id": first["message"]["id"]})

    assert session.json()["active_message_id"] == old_end["message"]["id"]
    assert await thread.contents() == ["One", "Hello there.", "Two", "Hello there."]
    root = await thread.http.patch(thread.path, json={"active_message_id": first["user_message"]["id"]})
    assert await thread.contents() == ["One", "Hello there."]
    assert root.json()["active_message_id"] != old_end["message"]["id"]
    assert int(root.headers["etag"].strip('"')) == root.json()["version"] == 3


async def test_a_switch_is_an_event_and_can_be_made_with_other_changes(thread: Thread) -> None:
    first = await thread.say("One")
    second = await thread.again(first["message"]["id"])
    seq = (await thread.http.get(thread.path)).json()["seq"]

    await thread.http.patch(thread.path, json={"title": "Both", "active_message_id": first["message"]["id"]})

    async with events(thread.http, "GET", f"{thread.path}/events", params={"after": seq}) as stream:
        told = (await stream.next()).data
    assert (told["type"], told["title"]) == ("session_updated", "Both")
    assert told["active_message_id"] == first["message"]["id"] != second["message"]["id"]


async def test_a_switch_obeys_if_match(thread: Thread) -> None:
    first = await thread.say("One")
    await thread.again(first["message"]["id"])
    body = {"active_message_id": first["message"]["id"]}

    problem(await thread.http.patch(thread.path, json=body, headers={"if-match": '"7"'}), 412, "stale_version")

    assert (await thread.http.get(thread.path)).json()["active_message_id"] != first["message"]["id"]


async def test_what_is_not_in_the_session_is_not_found_in_any_way(thread: Thread, stranger: Stranger) -> None:
    first = await thread.say("One")
    other = Thread(thread.http, (await thread.http.post("/api/sessions")).json()["id"])
    elsewhere = (await other.say("Elsewhere"))["message"]["id"]
    before = (await thread.http.get(thread.path)).json()

    for foreign in (elsewhere, str(stranger.message_id), str(uuid4())):
        for door in (thread.path, thread.path.replace("sessions", "conversations")):
            changed = await thread.http.patch(door, json={"active_message_id": foreign})
            problem(changed, 404, "not_found", "/active_message_id")
        listed = await thread.http.get(f"{thread.path}/messages", params={"branch": foreign})
        problem(listed, 404, "not_found", "/branch")
        again = await thread.http.post(f"{thread.path}/regenerate", json={"message_id": foreign})
        problem(again, 404, "not_found", "/message_id")
        edited = await thread.http.post(f"{thread.path}/messages", json={"content": "x", "replaces": foreign})
        problem(edited, 404, "not_found", "/replaces")
    theirs = f"/api/sessions/{stranger.session_id}"
    body = {"message_id": str(stranger.message_id)}
    problem(await thread.http.post(f"{theirs}/regenerate", json=body), 404, "not_found")
    problem(await thread.http.get(f"{theirs}/messages", params={"all": True}), 404, "not_found")
    changed = await thread.http.patch(theirs, json={"active_message_id": str(stranger.message_id)})
    problem(changed, 404, "not_found")

    assert (await thread.http.get(thread.path)).json() == before
    assert first["message"]["id"] == before["active_message_id"]


async def test_malformed_moves_are_refused(thread: Thread) -> None:
    first = await thread.say("One")
    both = {"branch": first["message"]["id"], "all": True}
    problem(await thread.http.get(f"{thread.path}/messages", params=both), 422, "invalid_request", "/branch")
    for body in ({}, {"message_id": None}, {"message_id": "x"}, {"message_id": str(uuid4()), "content": "x"}):
        problem(await thread.http.post(f"{thread.path}/regenerate", json=body), 422, "invalid_request")
    null = await thread.http.patch(thread.path, json={"active_message_id": None})
    problem(null, 422, "invalid_request", "/active_message_id")
    made = await thread.http.post("/api/sessions", json={"active_message_id": first["message"]["id"]})
    problem(made, 422, "invalid_request", "/active_message_id")
    reply = await thread.http.post(f"{thread.path}/messages", json={"content": "x", "replaces": first["message"]["id"]})
    problem(reply, 422, "invalid_request", "/replaces")


async def test_files_without_a_word_can_be_answered_once_more(thread: Thread, model: OpenAIFake) -> None:
    form = {"file": ("notes.txt", b"some words", "text/plain")}
    file = (await thread.http.post(f"{thread.path}/files", files=form)).raise_for_status().json()
    first = await thread.say("", attachments=[file["id"]])

    second = await thread.again(first["message"]["id"])

    assert second["user_message"]["id"] == first["user_message"]["id"]
    told = [(await model.request(number)).body["messages"] for number in (0, 1)]
    assert told[0] == told[1]
    assert "some words" in str(told[1])
