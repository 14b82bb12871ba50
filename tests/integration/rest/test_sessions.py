"""Sessions over REST, behind both doors."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Endless
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem

DOORS = ["/api/sessions", "/api/conversations"]


@pytest.mark.parametrize("door", DOORS)
async def test_a_session_needs_nothing(http: httpx2.AsyncClient, door: str) -> None:
    made = await http.post(door)

    assert made.status_code == 201
    session = made.json()
    assert session["persona_id"] is None
    assert (session["seq"], session["version"], session["active_run_id"]) == (0, 1, None)
    assert made.headers["etag"] == '"1"'
    assert made.headers["location"] == f"{door}/{session['id']}"
    for other in DOORS:
        assert (await http.get(f"{other}/{session['id']}")).json() == session


async def test_a_session_keeps_what_was_given(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    given = {
        "persona_id": persona["id"],
        "title": "On ships",
        "pinned": True,
        "connection": "demo",
        "model": "demo",
        "controls": {"temperature": 0.5},
        "metadata": {"colour": ["blue", None, 1.5, {"é": "😀"}]},
    }

    session = (await http.post("/api/sessions", json=given)).json()

    assert {key: session[key] for key in given} == given


async def test_a_session_begins_with_what_its_persona_says_first(
    http: httpx2.AsyncClient, persona: dict[str, Any]
) -> None:
    session = (await http.post("/api/sessions", json={"persona_id": persona["id"]})).json()

    history = (await http.get(f"/api/sessions/{session['id']}/messages")).json()

    (message,) = history["items"]
    assert (message["role"], message["content"]) == ("assistant", "Good morning.")
    assert message["token_count"] > 0
    assert history["seq"] == 0


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_is_stored_and_told_to_readers(
    http: httpx2.AsyncClient, session_id: str, door: str, method: str
) -> None:
    before = (await http.get(f"{door}/{session_id}")).json()
    async with events(http, "GET", f"/api/sessions/{session_id}/events") as stream:
        changes = {"title": "New", "pinned": True, "metadata": {"a": 1}}

        updated = (await http.request(method, f"{door}/{session_id}", json=changes)).json()

        told = await stream.next()
    assert updated == before | changes | {"version": 2, "seq": 1, "updated_at": updated["updated_at"]}
    assert told.id == 1
    assert told.data == {"type": "session_updated", "seq": 1, "at": told.data["at"]} | changes


async def test_null_clears_what_can_be_cleared(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    given = {"persona_id": persona["id"], "title": "T", "model": "m", "controls": {"seed": 1}, "metadata": {"a": 1}}
    session = (await http.post("/api/sessions", json=given)).json()

    cleared = (await http.patch(f"/api/sessions/{session['id']}", json=dict.fromkeys(given))).json()

    assert {key: cleared[key] for key in given} == {
        "persona_id": None,
        "title": None,
        "model": None,
        "controls": {},
        "metadata": {},
    }


async def test_an_empty_update_changes_nothing(http: httpx2.AsyncClient, session_id: str) -> None:
    before = (await http.get(f"/api/sessions/{session_id}")).json()

    assert (await http.patch(f"/api/sessions/{session_id}", json={})).json() == before
    assert (await http.get(f"/api/sessions/{session_id}")).json() == before


async def test_a_stale_etag_changes_nothing(http: httpx2.AsyncClient, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    first = await http.patch(path, json={"title": "First"}, headers={"if-match": '"1"'})

    for method, body in (("PATCH", {"title": "x"}), ("PUT", {"title": "x"}), ("PATCH", {}), ("DELETE", None)):
        stale = await http.request(method, path, json=body, headers={"if-match": '"1"'})
        assert problem(stale, 412, "stale_version")["details"] == {"version": 2}

    assert (await http.get(path)).json() == first.json()


@pytest.mark.parametrize(
    ("body", "status", "code", "at"),
    [
        ({"title": "t" * 201}, 422, "invalid_request", "/title"),
        ({"title": "a\0"}, 422, "invalid_request", "/title"),
        ({"title": 1}, 422, "invalid_request", "/title"),
        ({"pinned": None}, 422, "invalid_request", "/pinned"),
        ({"persona_id": "x"}, 422, "invalid_request", "/persona_id"),
        ({"persona_id": str(uuid4())}, 404, "not_found", "/persona_id"),
        ({"model": ""}, 422, "invalid_request", "/model"),
        ({"metadata": {"a": "b\0"}}, 422, "invalid_request", "/metadata"),
        ({"metadata": {"a": "b" * 16_384}}, 422, "invalid_request", "/metadata"),
        ({"metadata": {"a": 2**70}}, 422, "invalid_request", "/metadata"),
        ({"controls": {"temperature": "hot"}}, 422, "invalid_control", "/controls/temperature"),
        ({"controls": {"zeal": 1}}, 422, "unknown_control", "/controls/zeal"),
        ({"connection": "nowhere"}, 422, "unknown_provider", None),
        ({"id": str(uuid4())}, 422, "invalid_request", "/id"),
        ({"owner_id": str(uuid4())}, 422, "invalid_request", "/owner_id"),
    ],
)
async def test_bad_fields_are_refused_by_name_and_change_nothing(
    http: httpx2.AsyncClient, session_id: str, body: dict[str, Any], status: int, code: str, at: str | None
) -> None:
    before = (await http.get(f"/api/sessions/{session_id}")).json()

    problem(await http.post("/api/sessions", json=body), status, code, at)
    problem(await http.patch(f"/api/sessions/{session_id}", json={"title": "Good"} | body), status, code, at)

    assert (await http.get(f"/api/sessions/{session_id}")).json() == before


@pytest.mark.parametrize("door", DOORS)
async def test_sessions_of_a_persona_are_walked_by_cursor(
    http: httpx2.AsyncClient, persona: dict[str, Any], door: str
) -> None:
    made = [(await http.post(door, json={"persona_id": persona["id"]})).json()["id"] for _ in range(5)]
    path: str | None = f"{door}?persona_id={persona['id']}&limit=2"
    if door == "/api/conversations":
        path = f"{door}/by-persona/{persona['id']}?limit=2"

    walked: list[str] = []
    while path:
        page = await http.get(path)
        walked += [session["id"] for session in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None

    assert walked == made[::-1]


@pytest.mark.parametrize("door", DOORS)
async def test_a_deleted_session_is_gone_with_everything_in_it(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, door: str
) -> None:
    await http.patch(f"{door}/{session_id}", json={"title": "An event"})
    sent = await http.post(f"/api/sessions/{session_id}/messages", json={"content": "hello"})

    assert (await http.delete(f"{door}/{session_id}")).status_code == 204

    problem(await http.get(f"{door}/{session_id}"), 404, "not_found")
    problem(await http.delete(f"{door}/{session_id}"), 404, "not_found")
    problem(await http.get(f"/api/messages/{sent.json()['message']['id']}"), 404, "not_found")
    for table in ("journals", "events", "messages", "runs"):
        assert not await database.fetchval(f"select count(*) from {table} where session_id = $1", session_id)


async def test_deleting_a_session_stops_its_reply_and_ends_its_streams(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Endless("word "))
    async with (
        events(http, "GET", f"/api/sessions/{session_id}/events") as watcher,
        events(
            http,
            "POST",
            f"/api/sessions/{session_id}/messages",
            json={"content": "Talk"},
            headers={"accept": "text/event-stream"},
        ) as sender,
    ):
        await sender.until("text_delta")

        assert (await http.delete(f"/api/sessions/{session_id}")).status_code == 204

        await (await model.request()).closed
        await watcher.rest()
    problem(await http.get(f"/api/sessions/{session_id}"), 404, "not_found")


async def test_whoever_waits_for_a_reply_in_a_deleted_session_is_told(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Endless("word "))
    waiting = asyncio.create_task(http.post(f"/api/sessions/{session_id}/messages", json={"content": "Talk"}))
    await model.request()

    await http.delete(f"/api/sessions/{session_id}")

    answer = await waiting
    if answer.status_code == 200:  # the reply was stopped, and read in the moment before its session went
        assert answer.json()["finish_reason"] == "interrupted"
    else:
        problem(answer, 404, "not_found")


async def test_a_strangers_session_is_not_there(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, persona: dict[str, Any]
) -> None:
    theirs = str(stranger.session_id)
    for door in DOORS:
        for method, body in (("GET", None), ("PUT", {}), ("PATCH", {"title": "Mine"}), ("DELETE", None)):
            problem(await http.request(method, f"{door}/{theirs}", json=body), 404, "not_found")
        assert theirs not in (await http.get(door, params={"limit": 100})).text
    their_persona = {"persona_id": str(stranger.persona_id)}
    problem(await http.post("/api/sessions", json=their_persona), 404, "not_found", "/persona_id")
    problem(await http.patch(f"/api/sessions/{session_id}", json=their_persona), 404, "not_found", "/persona_id")
    problem(await http.get("/api/sessions", params=their_persona), 404, "not_found")
    problem(await http.get(f"/api/conversations/by-persona/{stranger.persona_id}"), 404, "not_found")
