"""Sending over REST, and stopping."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Endless, Status, Text, Wait
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem, text_of
from tests.waiting import eventually

SSE = {"accept": "text/event-stream"}


async def test_a_message_is_answered_when_the_reply_has_ended(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.reply("Hel", "lo.")

    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Hi"})

    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"run_id", "user_message", "message", "finish_reason", "usage", "error"}
    assert (body["user_message"]["role"], body["user_message"]["content"]) == ("user", "Hi")
    assert (body["message"]["role"], body["message"]["content"]) == ("assistant", "Hello.")
    assert body["message"]["parent_id"] == body["user_message"]["id"]
    assert (body["finish_reason"], body["error"]) == ("stop", None)
    run = (await http.get(f"/api/sessions/{session_id}/runs/{body['run_id']}")).json()
    assert (run["state"], run["message_id"], run["usage"]) == ("finished", body["message"]["id"], body["usage"])


async def test_several_turns_get_one_reply(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake) -> None:
    model.reply("Both.")
    turns = [{"content": "One"}, {"content": "Two"}]

    body = (await http.post(f"/api/sessions/{session_id}/messages", json={"messages": turns})).json()

    assert body["user_message"]["content"] == "Two"
    history = (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"]
    assert [message["content"] for message in history] == ["Both.", "Two", "One"]


async def test_a_retried_message_gets_the_same_reply(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("Once "), Wait(gate), Text("only."))
    path, body = f"/api/sessions/{session_id}/messages", {"content": "Hi", "client_message_id": "mine-1"}
    async with asyncio.TaskGroup() as group:
        first = group.create_task(http.post(path, json=body))
        await model.request()
        second = group.create_task(http.post(path, json=body))
        gate.set()
    third = await http.post(path, json=body)

    assert first.result().json() == second.result().json() == third.json()
    assert third.json()["message"]["content"] == "Once only."
    assert len(model.requests) == 1
    other_words = await http.post(path, json=body | {"content": "Other words"})
    problem(other_words, 409, "conflict", "/client_message_id")


async def test_a_retry_long_after_is_answered_from_the_history(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
) -> None:
    model.reply("Kept.")
    path, body = f"/api/sessions/{session_id}/messages", {"content": "Hi", "client_message_id": "mine-2"}
    first = (await http.post(path, json=body)).json()
    await database.execute(
        """
        with gone as (delete from events where session_id = $1)
        update journals set kept_after = last_seq where session_id = $1
        """,
        session_id,
    )

    assert (await http.post(path, json=body)).json() == first
    async with events(http, "POST", path, json=body, headers=SSE) as stream:
        assert await stream.rest() == []


async def test_the_runs_events_come_as_a_stream_that_ends_with_it(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.reply("Hel", "lo.")

    async with events(
        http, "POST", f"/api/sessions/{session_id}/messages", json={"content": "Hi"}, headers=SSE
    ) as stream:
        told = await stream.rest()

    types = [event.data["type"] for event in told]
    assert types[0] == "message_accepted"
    assert types[-1] == "post_response_complete"
    assert types.count("assistant_end") == 1
    assert text_of(told) == "Hello."
    assert [event.id for event in told] == [event.data["seq"] for event in told]
    assert all(event.name is None for event in told)


async def test_a_retried_stream_tells_the_same_events_again(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.reply("Hel", "lo.")
    path, body = f"/api/sessions/{session_id}/messages", {"content": "Hi", "client_message_id": "mine-3"}

    streams = []
    for _ in range(2):
        async with events(http, "POST", path, json=body, headers=SSE) as stream:
            streams.append(await stream.rest())

    assert streams[0] == streams[1]


async def test_a_reply_goes_on_without_the_client_that_asked_for_it(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two."))
    path = f"/api/sessions/{session_id}/messages"
    async with events(http, "POST", path, json={"content": "Hi"}, headers=SSE) as stream:
        await stream.until("text_delta")

    gate.set()

    await eventually(lambda: _newest_is(http, path, "One two."))


async def test_a_client_that_waited_for_json_may_leave_too(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two."))
    path = f"/api/sessions/{session_id}/messages"
    waiting = asyncio.create_task(http.post(path, json={"content": "Hi"}))
    await model.request()
    waiting.cancel()
    await asyncio.wait([waiting])

    gate.set()

    await eventually(lambda: _newest_is(http, path, "One two."))


async def test_an_interrupted_reply_keeps_what_was_shown(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Endless("word "))
    path = f"/api/sessions/{session_id}"
    async with events(http, "POST", f"{path}/messages", json={"content": "Talk"}, headers=SSE) as stream:
        shown = await stream.until("text_delta")

        stopped = await http.post(f"{path}/interrupt", json={"run_id": shown[0].data["run_id"]})

        shown += await stream.rest()
    assert stopped.status_code == 202
    assert stopped.json() == {"run_id": shown[0].data["run_id"]}
    assert [event.data["type"] for event in shown[-2:]] == ["interrupted", "assistant_end"]
    assert await _newest_is(http, f"{path}/messages", text_of(shown))


async def test_an_interrupt_without_a_body_stops_the_active_run(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Endless("word "))
    path = f"/api/sessions/{session_id}"
    waiting = asyncio.create_task(http.post(f"{path}/messages", json={"content": "Talk"}))
    await model.request()

    assert (await http.post(f"{path}/interrupt")).status_code == 202

    body = (await waiting).json()
    assert (body["finish_reason"], body["error"]) == ("interrupted", None)


async def test_when_nothing_runs_there_is_nothing_to_stop(http: httpx2.AsyncClient, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    ended = (await http.post(f"{path}/messages", json={"content": "Hi"})).json()["run_id"]

    problem(await http.post(f"{path}/interrupt", json={}), 409, "nothing_running")
    problem(await http.post(f"{path}/interrupt", json={"run_id": ended}), 409, "nothing_running")
    problem(await http.post(f"{path}/interrupt", json={"run_id": str(uuid4())}), 404, "not_found", "/run_id")
    problem(await http.post(f"{path}/interrupt", json={"run_id": "x"}), 422, "invalid_request", "/run_id")


async def test_a_busy_session_refuses_or_queues_as_asked(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("First "), Wait(gate), Text("reply."))
    model.reply("Second reply.")
    path = f"/api/sessions/{session_id}/messages"
    async with asyncio.TaskGroup() as group:
        first = group.create_task(http.post(path, json={"content": "One"}))
        await model.request()
        refused = await http.post(path, json={"content": "No", "when_busy": "reject"})
        queued = group.create_task(http.post(path, json={"content": "Two", "when_busy": "queue"}))
        gate.set()

    busy = problem(refused, 409, "session_busy")
    assert busy["retryable"]
    assert busy["resend_safe"]
    assert busy["details"]["active_run"] == first.result().json()["run_id"]
    assert queued.result().json()["message"]["content"] == "Second reply."
    history = (await http.get(path)).json()["items"]
    assert [message["content"] for message in history] == ["Second reply.", "Two", "First reply.", "One"]


async def test_a_new_message_stops_the_reply_before_it(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Endless("word "))
    model.reply("Sorry.")
    path = f"/api/sessions/{session_id}/messages"
    async with asyncio.TaskGroup() as group:
        first = group.create_task(http.post(path, json={"content": "One"}))
        await model.request()
        second = group.create_task(http.post(path, json={"content": "Stop, two"}))

    assert first.result().json()["finish_reason"] == "interrupted"
    assert second.result().json()["message"]["content"] == "Sorry."


async def test_a_failed_reply_says_why(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake) -> None:
    model.script(Status(401, "no such key"))

    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Hi"})

    assert answer.status_code == 200
    body = answer.json()
    assert body["finish_reason"] == "error"
    assert body["error"]["code"] == "provider_authentication"
    assert body["user_message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("body", "code", "at"),
    [
        ({}, "invalid_request", ""),
        ({"content": "a", "messages": [{"content": "b"}]}, "invalid_request", ""),
        ({"content": None}, "invalid_request", ""),
        ({"content": ""}, "invalid_request", "/content"),
        ({"content": "  \n"}, "invalid_request", "/content"),
        ({"content": "a\0b"}, "invalid_request", "/content"),
        ({"content": 5}, "invalid_request", "/content"),
        ({"content": "x" * 300_000}, "invalid_request", "/content"),
        ({"messages": []}, "invalid_request", "/messages"),
        ({"messages": [{"content": "a"}, {"content": "b\0"}]}, "invalid_request", "/messages/1/content"),
        ({"messages": [{"content": "a", "role": "system"}]}, "invalid_request", "/messages/0/role"),
        ({"content": "a", "client_message_id": ""}, "invalid_request", "/client_message_id"),
        ({"content": "a", "client_message_id": "x" * 201}, "invalid_request", "/client_message_id"),
        ({"content": "a", "when_busy": "steer?"}, "invalid_request", "/when_busy"),
        ({"content": "a", "persona_id": "x"}, "invalid_request", "/persona_id"),
        ({"content": "a", "base_url": "http://evil"}, "invalid_request", "/base_url"),
        ({"content": "a", "controls": {"temperature": 3}}, "invalid_control", "/controls/temperature"),
        ({"content": "a", "controls": {"zeal": 3}}, "unknown_control", "/controls/zeal"),
        ({"content": "a", "connection_id": "nowhere"}, "unknown_provider", None),
    ],
)
async def test_a_bad_message_is_refused_before_the_session_is_looked_up(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, body: dict[str, Any], code: str, at: str | None
) -> None:
    for session in (session_id, stranger.session_id):
        problem(await http.post(f"/api/sessions/{session}/messages", json=body), 422, code, at)

    assert (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"] == []


async def test_a_bad_message_is_a_problem_also_for_who_asked_for_events(
    http: httpx2.AsyncClient, session_id: str
) -> None:
    path = f"/api/sessions/{session_id}/messages"

    problem(await http.post(path, json={"content": ""}, headers=SSE), 422, "invalid_request", "/content")
    gone = f"/api/sessions/{uuid4()}/messages"
    problem(await http.post(gone, json={"content": "Hi"}, headers=SSE), 404, "not_found")


async def test_nobody_sends_to_a_stranger_or_with_a_strangers_persona(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, database: asyncpg.Connection
) -> None:
    theirs, mine = f"/api/sessions/{stranger.session_id}", f"/api/sessions/{session_id}"
    good = {"content": "Hi"}
    problem(await http.post(f"{theirs}/messages", json=good), 404, "not_found")
    problem(await http.post(f"{theirs}/messages", json=good, headers=SSE), 404, "not_found")
    problem(await http.post(f"{theirs}/interrupt"), 404, "not_found")
    problem(await http.get(f"{theirs}/runs/{stranger.run_id}"), 404, "not_found")
    problem(await http.get(f"{mine}/runs/{stranger.run_id}"), 404, "not_found")
    problem(await http.post(f"{mine}/interrupt", json={"run_id": str(stranger.run_id)}), 404, "not_found")
    with_theirs = good | {"persona_id": str(stranger.persona_id)}
    problem(await http.post(f"{mine}/messages", json=with_theirs), 404, "not_found", "/persona_id")

    assert await database.fetchval("select count(*) from messages where session_id = $1", stranger.session_id) == 1


async def _newest_is(http: httpx2.AsyncClient, path: str, content: str) -> bool:
    items = (await http.get(path)).json()["items"]
    return bool(items) and items[0]["role"] == "assistant" and items[0]["content"] == content
