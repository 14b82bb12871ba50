"""Looking at what a model is given of a session, and making room in it by hand."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Finish, Status, Text, Wait
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem

LONG = "word " * 400


async def talk(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, turns: int) -> None:
    for n in range(turns):
        model.reply(f"Answer {n}. {LONG}")
        reply = await http.post(f"/api/sessions/{session_id}/messages", json={"content": f"Question {n}. {LONG}"})
        assert reply.json()["finish_reason"] == "stop"


async def context(http: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    return (await http.get(f"/api/sessions/{session_id}/context")).raise_for_status().json()


async def test_session_in_which_nothing_was_said_has_an_empty_context(http: httpx2.AsyncClient, session_id: str):
    view = await context(http, session_id)
    assert (view["tokens"], view["messages"], view["summary"], view["has_older"]) == (0, [], None, False)
    assert view["limit"] > view["threshold"] > 0
    assert view["is_estimate"]


async def test_context_tells_what_each_message_costs_and_what_all_of_it_does(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await talk(http, session_id, model, 2)
    view = await context(http, session_id)

    history = (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"][::-1]
    assert [message["message_id"] for message in view["messages"]] == [message["id"] for message in history]
    assert [message["role"] for message in view["messages"]] == ["user", "assistant"] * 2
    assert all(message["in_window"] for message in view["messages"])
    assert [message["tokens"] for message in view["messages"]] == [message["token_count"] + 4 for message in history]
    assert view["messages"][0]["items"][0]["preview"].startswith("Question 0.")
    parts = view["parts"]
    assert parts["history"] == sum(message["tokens"] for message in view["messages"])
    assert view["tokens"] == parts["system"] + parts["tools"] + parts["summary"] + parts["history"]


async def test_run_remembers_what_filled_its_window(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake):
    await talk(http, session_id, model, 1)
    reply = (await http.post(f"/api/sessions/{session_id}/messages", json={"content": "And?"})).json()
    run = (await http.get(f"/api/sessions/{session_id}/runs/{reply['run_id']}")).json()
    assert run["context"]["parts"]["history"] > 800
    assert run["context"]["tokens"] < run["context"]["limit"]


async def test_summary_by_hand_takes_the_place_of_all_but_the_newest_messages(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await talk(http, session_id, model, 3)
    before = (await http.get(f"/api/sessions/{session_id}")).json()["seq"]
    model.reply("They asked three questions.")

    made = (await http.post(f"/api/sessions/{session_id}/summarize")).raise_for_status().json()

    assert made["kind"] == "summary"
    assert made["before"] > 2400 > made["after"]
    assert made["summarized_messages"] == 4
    async with events(http, "GET", f"/api/sessions/{session_id}/events", params={"after": before}) as stream:
        event = (await stream.next()).data
    assert event["type"] == "context_compacted"
    assert {name: event[name] for name in ("before", "after", "summarized_messages")} == {
        name: made[name] for name in ("before", "after", "summarized_messages")
    }
    view = await context(http, session_id)
    assert view["tokens"] == made["after"]
    assert (view["summary"]["text"], view["summary"]["summarized_messages"]) == ("They asked three questions.", 4)
    assert len(view["messages"]) == 2
    assert len((await http.get(f"/api/sessions/{session_id}/messages")).json()["items"]) == 6


async def test_summary_that_fails_is_told_and_leaves_everything_as_it_was(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await talk(http, session_id, model, 3)
    before = await context(http, session_id)
    model.script(Text("..."))
    problem(await http.post(f"/api/sessions/{session_id}/summarize"), 502, "summary_failed")
    model.script(Text("cut"), Finish("length"))
    problem(await http.post(f"/api/sessions/{session_id}/summarize"), 502, "summary_failed")
    model.script(Status(401, "no key"))
    problem(await http.post(f"/api/sessions/{session_id}/summarize"), 502, "provider_authentication")
    assert await context(http, session_id) == before


async def test_there_may_be_nothing_to_summarize(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake):
    problem(await http.post(f"/api/sessions/{session_id}/summarize"), 409, "conflict")
    await talk(http, session_id, model, 1)
    problem(await http.post(f"/api/sessions/{session_id}/summarize"), 409, "conflict")
    assert len(model.requests) == 1


async def test_nothing_is_summarized_by_hand_while_a_reply_or_another_summary_is_in_the_making(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await talk(http, session_id, model, 2)
    path, gate = f"/api/sessions/{session_id}", asyncio.Event()
    model.script(Text("One "), Wait(gate))
    stream = {"accept": "text/event-stream"}
    async with events(http, "POST", f"{path}/messages", json={"content": "Hi"}, headers=stream) as reply:
        await reply.until("text_delta")
        refused = problem(await http.post(f"{path}/summarize"), 409, "session_busy")
        assert refused["details"]["active_run"]
        gate.set()
        await reply.rest()

    gate.clear()
    model.script(Text("They "), Wait(gate), Text("talked."))
    asked = len(model.requests)
    first = asyncio.create_task(http.post(f"{path}/summarize"))
    await model.request(asked)
    problem(await http.post(f"{path}/summarize"), 409, "session_busy")
    gate.set()
    assert (await first).json()["kind"] == "summary"


async def test_summary_of_what_was_changed_meanwhile_is_not_kept(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
):
    await talk(http, session_id, model, 3)
    gate = asyncio.Event()
    model.script(Text("They asked "), Wait(gate), Text("three questions."))
    asked = len(model.requests)
    summarizing = asyncio.create_task(http.post(f"/api/sessions/{session_id}/summarize"))
    await model.request(asked)
    oldest = (await context(http, session_id))["messages"][0]["message_id"]
    await http.patch(f"/api/messages/{oldest}", json={"content": "Something else."})
    gate.set()
    problem(await summarizing, 409, "conflict")
    assert (await context(http, session_id))["summary"] is None


async def test_context_of_others_is_not_there(
    http: httpx2.AsyncClient, stranger: Stranger, database: asyncpg.Connection
):
    for id in (uuid4(), stranger.session_id):
        problem(await http.get(f"/api/sessions/{id}/context"), 404, "not_found")
        problem(await http.post(f"/api/sessions/{id}/summarize"), 404, "not_found")
    assert (
        await database.fetchval("SELECT count(*) FROM context_summaries WHERE session_id = $1", stranger.session_id)
        == 0
    )
