"""Changing what was said: the history and what the model is told of it follow, and readers hear of it."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from db.ids import new_id
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.fakes.strict import complaints_about
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem


async def said(http: httpx2.AsyncClient, session_id: str) -> list[tuple[str, str]]:
    """Who said what in the active branch, oldest first."""
    items = (await http.get(f"/api/sessions/{session_id}/messages")).raise_for_status().json()["items"]
    return [(message["role"], message["content"]) for message in reversed(items)]


async def ids(http: httpx2.AsyncClient, session_id: str) -> list[str]:
    items = (await http.get(f"/api/sessions/{session_id}/messages")).raise_for_status().json()["items"]
    return [message["id"] for message in reversed(items)]


async def add(http: httpx2.AsyncClient, session_id: str, role: str, content: str, **fields: Any) -> dict[str, Any]:
    body = {"session_id": session_id, "role": role, "content": content, **fields}
    return (await http.post("/api/messages", json=body)).raise_for_status().json()


async def told(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake) -> list[str]:
    """What the model is told when the user says `Go on.`"""
    await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Go on."})
    messages = model.requests[-1].body["messages"]
    assert complaints_about(messages) == []
    return [message["content"] for message in messages]


async def heard(http: httpx2.AsyncClient, session_id: str, after: int) -> dict[str, Any]:
    """The next event of the session after that position."""
    async with events(http, "GET", f"/api/sessions/{session_id}/events", params={"after": after}) as stream:
        return (await stream.next()).data


async def seq(http: httpx2.AsyncClient, session_id: str) -> int:
    return (await http.get(f"/api/sessions/{session_id}")).json()["seq"]


# --- adding ---------------------------------------------------------------------------------------------------------


async def test_messages_from_elsewhere_become_the_conversation_that_goes_on(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await add(http, session_id, "user", "What is tea?")
    await add(http, session_id, "assistant", "A drink.", metadata={"from": "elsewhere"})
    await add(http, session_id, "system", "The shop is closed.")

    window = await told(http, session_id, model)

    assert window[:2] == ["What is tea?", "A drink."]
    assert "The shop is closed." in window[2]
    assert window[3] == "Go on."
    assert len(await said(http, session_id)) == 5


async def test_added_message_is_told_to_readers_and_found_where_it_was_said_to_be(
    http: httpx2.AsyncClient, session_id: str
):
    before = await seq(http, session_id)
    response = await http.post(
        "/api/messages", json={"conversation_id": session_id, "role": "assistant", "content": "Hello."}
    )
    assert response.status_code == 201
    message = response.json()
    assert (await http.get(response.headers["location"])).json() == message
    assert message["parts"] == [{"type": "text", "text": "Hello."}]
    event = await heard(http, session_id, before)
    assert (event["type"], event["seq"]) == ("session_updated", before + 1)
    assert event["changed_messages"] == {message["id"]: "added"}
    assert event["active_message_id"] == message["id"]


async def test_message_added_to_an_older_one_begins_a_branch_of_its_own(http: httpx2.AsyncClient, session_id: str):
    first = await add(http, session_id, "user", "One")
    await add(http, session_id, "assistant", "Two")
    other = await add(http, session_id, "assistant", "Another two", parent_id=first["id"])
    assert [content for _, content in await said(http, session_id)] == ["One", "Two"]
    assert (other["siblings"]["count"], other["parent_id"]) == (2, first["id"])


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"role": "user", "content": "x"}, None),
        ({"role": "tool", "content": "x"}, "/role"),
        ({"role": "user", "content": " \n"}, "/content"),
        ({"role": "user", "content": "a\0b"}, "/content"),
        ({"role": "user", "content": "x" * 300_000}, "/content"),
        ({"role": "user", "content": "x", "parent_id": "no"}, "/parent_id"),
        ({"role": "user", "content": "x", "token_count": 1}, "/token_count"),
    ],
)
async def test_what_is_no_message_is_refused(
    http: httpx2.AsyncClient, session_id: str, body: dict[str, Any], at: str | None
):
    named = {} if at is None else {"session_id": session_id}
    problem(await http.post("/api/messages", json=body | named), 422, "invalid_request", at)
    assert await said(http, session_id) == []


async def test_message_is_added_only_where_its_owner_may(http: httpx2.AsyncClient, session_id: str, stranger: Stranger):
    for where in (uuid4(), stranger.session_id):
        body = {"session_id": str(where), "role": "user", "content": "x"}
        problem(await http.post("/api/messages", json=body), 404, "not_found")
    for parent in (uuid4(), stranger.message_id):
        body = {"session_id": session_id, "role": "user", "content": "x", "parent_id": str(parent)}
        problem(await http.post("/api/messages", json=body), 404, "not_found", "/parent_id")


# --- changing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_new_words_are_what_the_model_is_told(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, method: str
):
    question = await add(http, session_id, "user", "What is tea?")
    answer = await add(http, session_id, "assistant", "A stone.")
    before = await seq(http, session_id)

    changed = await http.request(method, f"/api/messages/{answer['id']}", json={"content": "A drink, of leaves."})

    assert changed.status_code == 200
    assert changed.json()["token_count"] > answer["token_count"]
    assert changed.json()["parts"] == [{"type": "text", "text": "A drink, of leaves."}]
    assert (await heard(http, session_id, before))["changed_messages"] == {answer["id"]: "edited"}
    assert await told(http, session_id, model) == ["What is tea?", "A drink, of leaves.", "Go on."]
    assert (await http.get(f"/api/messages/{question['id']}")).json() == question


async def test_changed_reply_with_tools_keeps_them_in_the_history_and_is_told_by_its_words_alone(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
):
    await add(http, session_id, "user", "Look!")
    reply = await add(http, session_id, "assistant", "Let me see. A needle.")
    call = '{"type": "tool_call", "id": "1", "name": "look"}'
    await database.execute(
        "UPDATE messages SET parts = $2::jsonb || parts, context_tokens = 9 WHERE id = $1", reply["id"], call
    )
    await database.execute(
        """
        INSERT INTO context_items (session_id, message_id, position, body, token_count)
        VALUES ($1, $2, 0, '{"role": "assistant", "text": "Let me see. ",
                             "calls": [{"id": "1", "name": "look", "arguments": "{}"}]}', 5)
        """,
        session_id,
        reply["id"],
    )
    changed = (await http.patch(f"/api/messages/{reply['id']}", json={"content": "Nothing."})).json()

    assert [part["type"] for part in changed["parts"]] == ["tool_call", "text"]
    assert await told(http, session_id, model) == ["Look!", "Nothing.", "Go on."]


async def test_notes_of_a_client_change_nothing_of_the_words(http: httpx2.AsyncClient, session_id: str):
    message = await add(http, session_id, "user", "One")
    changed = (await http.patch(f"/api/messages/{message['id']}", json={"metadata": {"star": True}})).json()
    assert (changed["content"], changed["metadata"]) == ("One", {"star": True})
    cleared = (await http.patch(f"/api/messages/{message['id']}", json={"metadata": None})).json()
    assert cleared["metadata"] == {}


@pytest.mark.parametrize("body", [{"content": ""}, {"content": None}, {"role": "system"}, {"content": "a\0"}])
async def test_what_cannot_be_said_changes_nothing(http: httpx2.AsyncClient, session_id: str, body: dict[str, Any]):
    message = await add(http, session_id, "user", "One")
    problem(await http.patch(f"/api/messages/{message['id']}", json=body), 422, "invalid_request")
    assert await said(http, session_id) == [("user", "One")]


# --- deleting -------------------------------------------------------------------------------------------------------


async def test_what_followed_a_deleted_message_follows_the_one_before(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    for n, role in enumerate(("user", "assistant", "user", "assistant")):
        await add(http, session_id, role, f"{n}")
    before = await seq(http, session_id)
    first, second, third, fourth = await ids(http, session_id)

    assert (await http.delete(f"/api/messages/{second}")).status_code == 204

    assert await ids(http, session_id) == [first, third, fourth]
    event = await heard(http, session_id, before)
    assert event["changed_messages"] == {second: "deleted"}
    assert "active_message_id" not in event
    problem(await http.get(f"/api/messages/{second}"), 404, "not_found")
    assert await told(http, session_id, model) == ["0", "2", "3", "Go on."]


async def test_branch_whose_newest_message_is_deleted_ends_with_the_one_before(
    http: httpx2.AsyncClient, session_id: str
):
    only = await add(http, session_id, "user", "One")
    newest = await add(http, session_id, "assistant", "Two")
    for message, left in ((newest, only["id"]), (only, None)):
        before = await seq(http, session_id)
        await http.delete(f"/api/messages/{message['id']}")
        assert (await heard(http, session_id, before))["active_message_id"] == left
        assert (await http.get(f"/api/sessions/{session_id}")).json()["active_message_id"] == left
    await add(http, session_id, "user", "Anew")
    assert await said(http, session_id) == [("user", "Anew")]


async def test_deleted_reply_is_not_answered_again_by_a_retry(http: httpx2.AsyncClient, session_id: str):
    path, body = f"/api/sessions/{session_id}/messages", {"content": "Hi", "client_message_id": "once"}
    reply = (await http.post(path, json=body)).json()
    await http.delete(f"/api/messages/{reply['message']['id']}")
    again = await http.post(path, json=body)
    assert (again.status_code, again.json()["message"]) == (200, None)


# --- together with runs and summaries -------------------------------------------------------------------------------


async def test_messages_that_a_running_reply_needs_stay_as_they_are(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    older = await add(http, session_id, "user", "Before")
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two"))
    path = f"/api/sessions/{session_id}"
    async with events(
        http, "POST", f"{path}/messages", json={"content": "Hi"}, headers={"accept": "text/event-stream"}
    ) as reply:
        await reply.until("text_delta")
        running = (await http.get(f"{path}/messages")).json()["items"][0]["id"]
        problem(await http.patch(f"/api/messages/{running}", json={"content": "Ho"}), 409, "session_busy")
        problem(await http.delete(f"/api/messages/{running}"), 409, "session_busy")
        body = {"session_id": session_id, "role": "user", "content": "x"}
        problem(await http.post("/api/messages", json=body), 409, "session_busy")
        assert (await http.patch(f"/api/messages/{older['id']}", json={"content": "Long before"})).status_code == 200
        gate.set()
        await reply.rest()
    assert await said(http, session_id) == [("user", "Long before"), ("user", "Hi"), ("assistant", "One two")]


async def summarized(database: asyncpg.Connection, session_id: str, message_id: str, text: str = "So far.") -> None:
    await database.execute(
        """
        INSERT INTO context_summaries
            (id, session_id, message_id, kind, text, token_count, summarized_messages, tokens_before)
        VALUES ($1, $2, $3, 'summary', $4, 20, 2, 100)
        """,
        new_id(),
        session_id,
        message_id,
        text,
    )


async def test_summary_is_forgotten_when_what_it_covers_changes_and_stays_when_what_follows_does(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
):
    one, two, three = [
        await add(http, session_id, role, content)
        for role, content in (("user", "One"), ("assistant", "Two"), ("user", "Three"))
    ]
    await summarized(database, session_id, two["id"])
    await http.patch(f"/api/messages/{three['id']}", json={"content": "Drei"})
    window = await told(http, session_id, model)
    assert "So far." in window[0]
    assert window[1] == "Drei"

    await http.patch(f"/api/messages/{one['id']}", json={"content": "Eins"})
    assert (await told(http, session_id, model))[:3] == ["Eins", "Two", "Drei"]

    await summarized(database, session_id, two["id"])
    await http.delete(f"/api/messages/{two['id']}")
    assert (await told(http, session_id, model))[:2] == ["Eins", "Drei"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_messages_of_others_are_not_there(
    http: httpx2.AsyncClient, stranger: Stranger, database: asyncpg.Connection, method: str
):
    for id in (uuid4(), stranger.message_id):
        body = {"content": "mine"} if method == "PATCH" else None
        problem(await http.request(method, f"/api/messages/{id}", json=body), 404, "not_found")
    assert await database.fetchval("SELECT content FROM messages WHERE id = $1", stranger.message_id) == "secret"
