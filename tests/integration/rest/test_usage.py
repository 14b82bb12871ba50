"""What was used is counted once, outlives what it was used for, and ends where the operator says."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Status, Text, Tokens, call
from tests.integration.rest.reading import events, problem
from tests.integration.sockets.client import client_of
from tests.service import local_settings, running_service

SSE = {"accept": "text/event-stream"}


@pytest.fixture(autouse=True)
async def nothing_used_yet(database: asyncpg.Connection) -> None:
    await database.execute("delete from usage_entries")


async def used(http: httpx2.AsyncClient, by: str = "kind") -> dict[str, Any]:
    return (await http.get("/api/usage", params={"group_by": by})).raise_for_status().json()


async def ask(http: httpx2.AsyncClient, session_id: str, words: str = "Hi") -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": words})
    return answer.raise_for_status().json()


async def test_a_reply_costs_what_its_server_has_counted(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, persona: dict[str, Any]
) -> None:
    await http.patch(f"/api/sessions/{session_id}", json={"persona_id": persona["id"]})
    model.script(Text("Hello."), Tokens(120, 30, 10))

    await ask(http, session_id)

    today = datetime.now(UTC).date().isoformat()
    for by, key in {
        "day": today,
        "model": "fake-small",
        "connection": "openai",
        "session": session_id,
        "persona": persona["id"],
        "kind": "reply",
    }.items():
        report = await used(http, by)
        sums = {"runs": 1, "input_tokens": 120, "output_tokens": 30, "thinking_tokens": 10, "estimated_tokens": 0}
        assert report["items"] == [sums | {"key": key}], by
        assert report["total"] == sums
        assert report["allowance"]["used_today"] == 150
        assert report["allowance"]["tokens_per_day"] is None


async def test_every_call_of_a_run_counts(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake) -> None:
    model.script(call(0, "no_such_tool", {}), Tokens(100, 10, 0))
    model.script(Text("I cannot."), Tokens(200, 20, 0))

    body = await ask(http, session_id)

    assert (await used(http))["total"]["input_tokens"] == 300
    assert body["usage"]["input_tokens"] == 300


async def test_what_was_deleted_was_used_all_the_same(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Text("Hello."), Tokens(120, 30, 0))
    await ask(http, session_id)

    await http.delete(f"/api/sessions/{session_id}")

    assert (await used(http))["total"]["input_tokens"] == 120


async def test_an_interrupted_reply_counts_what_it_is_estimated_at(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(call(0, "no_such_tool", {}), Tokens(100, 10, 0))
    model.script(Text("Let me see. "), Hang())
    path = f"/api/sessions/{session_id}"

    async with events(http, "POST", f"{path}/messages", json={"content": "Go"}, headers=SSE) as stream:
        await stream.until("text_delta")
        await http.post(f"{path}/interrupt")
        ended = (await stream.until("assistant_end"))[-1].data

    total = (await used(http))["total"]
    assert (total["runs"], total["input_tokens"], total["output_tokens"]) == (1, 100, 10)
    assert total["estimated_tokens"] > 0
    assert ended["usage"]["input_tokens"] == 100


async def test_a_call_that_failed_before_its_first_word_costs_nothing(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Status(400))

    assert (await ask(http, session_id))["finish_reason"] == "error"
    assert (await used(http))["total"]["estimated_tokens"] == 0


async def test_the_work_after_a_reply_is_told_apart(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
) -> None:
    run = UUID((await ask(http, session_id))["run_id"])
    await database.execute(
        "insert into post_responses (run_id, session_id, owner_id, position) values ($1, $2, $3, 1)",
        run,
        UUID(session_id),
        LOCAL_OWNER,
    )
    for title in (5, 7):  # done again, it counts once
        await database.execute(
            """
            update post_responses set usage = usage || jsonb_build_object(
                'title', jsonb_build_object('input_tokens', $2::int, 'output_tokens', 1),
                'modules/' || $2::int, jsonb_build_object('input_tokens', 100, 'output_tokens', 1)
            ) where run_id = $1
            """,
            run,
            title,
        )

    sums = {item["key"]: item["input_tokens"] for item in (await used(http))["items"]}

    assert (sums["title"], sums["modules"]) == (7, 200)


async def test_a_report_is_of_its_owner_and_of_its_time(http: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    stranger, now = new_id(), datetime.now(UTC)
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody')", stranger)
    for owner, days, tokens in (
        (LOCAL_OWNER, 1, 1),
        (LOCAL_OWNER, 10, 10),
        (LOCAL_OWNER, 40, 100),
        (stranger, 1, 1000),
    ):
        await database.execute(
            """
            insert into usage_entries
                (run_id, part, owner_id, session_id, kind, input_tokens, output_tokens, thinking_tokens, at)
            values ($1, 'reply', $2, $1, 'reply', $3, 0, 0, $4)
            """,
            new_id(),
            owner,
            tokens,
            now - timedelta(days=days),
        )

    assert (await used(http))["total"]["input_tokens"] == 11
    params = {"from": (now - timedelta(days=50)).isoformat(), "to": (now - timedelta(days=5)).isoformat()}
    old = (await http.get("/api/usage", params=params)).json()
    assert [item["input_tokens"] for item in old["items"]] == [100, 10]


@pytest.mark.parametrize(
    ("params", "at"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "/from"),
        ({"from": "2020-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "/from"),
        ({"from": "yesterday"}, "/from"),
        ({"to": "0.5"}, "/to"),
        ({"group_by": "owner"}, "/group_by"),
    ],
)
async def test_a_report_of_no_time_is_refused(http: httpx2.AsyncClient, params: dict[str, str], at: str) -> None:
    problem(await http.get("/api/usage", params=params), 422, "invalid_request", at)


@asynccontextmanager
async def with_quota(database_url: str, model: OpenAIFake, tokens: int) -> AsyncGenerator[httpx2.AsyncClient, None]:
    settings = local_settings(
        default_provider="openai",
        openai_base_url=model.url,
        openai_default_model="fake-small",
        limits={"tokens_per_user_day": tokens},
    )
    async with (
        running_service(settings, database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url, timeout=20) as http,
    ):
        yield http


async def test_a_quota_ends_runs_and_lets_none_begin(database_url: str, model: OpenAIFake) -> None:
    async with with_quota(database_url, model, 200) as http:
        session = (await http.post("/api/sessions", json={})).json()["id"]
        path, key = f"/api/sessions/{session}/messages", str(uuid4())

        # Within it; then over it in the middle of a run, before the model is asked once more.
        model.script(Text("Hello."), Tokens(100, 10, 0))
        first = await http.post(path, json={"content": "Hi", "client_message_id": key})
        model.script(Text("Well. "), call(0, "no_such_tool", {}), Tokens(100, 10, 0))
        second = await ask(http, session)
        requests = len(model.requests)
        third = await http.post(path, json={"content": "And now?"})
        again = await http.post(path, json={"content": "Hi", "client_message_id": key})

        assert (second["finish_reason"], second["error"]["code"]) == ("error", "quota_exceeded")
        assert second["message"]["content"] == "Well. "
        told = problem(third, 429, "quota_exceeded")
        assert (told["details"]["limit"], told["details"]["used"]) == (200, 220)
        assert 0 < int(third.headers["retry-after"]) <= 86_400
        assert len(model.requests) == requests
        assert again.json()["run_id"] == first.json()["run_id"]
        assert (await used(http))["allowance"]["tokens_per_day"] == 200


async def test_a_socket_is_told_of_the_quota_and_stays_open(database_url: str, model: OpenAIFake) -> None:
    async with with_quota(database_url, model, 50) as http, client_of(str(http.base_url).rstrip("/")) as client:
        session = await client.session(forget=False)
        socket = await client.open(session)
        model.script(Text("Hello."), Tokens(100, 10, 0))
        await socket.reply("Hi")

        await socket.say("And now?")
        error = await socket.refused("quota_exceeded")
        assert (error["retryable"], error["details"]["limit"], error["details"]["used"]) == (True, 50, 110)
        assert 0 < error["details"]["retry_after"] <= 86_400
        assert await socket.answered() == []
        assert await client.said(session) == [("user", "Hi"), ("assistant", "Hello.")]


async def test_what_asks_models_on_the_side_is_held_to_it_too(database_url: str, model: OpenAIFake) -> None:
    async with with_quota(database_url, model, 1) as http:
        session = (await http.post("/api/sessions", json={})).json()["id"]
        model.script(Text("Hello."), Tokens(100, 10, 0))
        await ask(http, session)

        for path, body in (
            ("/api/templates/resolve", {"template": "x", "run_ai": True}),
            ("/api/modules/test-script", {"script": "x = 1", "run_ai": True}),
            (f"/api/sessions/{session}/summarize", None),
        ):
            problem(await http.post(path, json=body), 429, "quota_exceeded")


@pytest.mark.parametrize("ending", ["", "\nraise ValueError('no')"])
async def test_what_is_tried_out_is_used_all_the_same(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, ending: str
) -> None:
    model.script(Text("Hello."), Tokens(100, 10, 0))
    script = f"mood = ctx.generate('How do they feel?'){ending}"
    body = {"script": script, "run_ai": True, "session_id": session_id}
    tried = await http.post("/api/modules/test-script", json=body)
    assert tried.status_code == 200, tried.text

    (item,) = (await used(http))["items"]
    assert (item["key"], item["runs"], item["input_tokens"], item["output_tokens"]) == ("trial", 0, 100, 10)
    assert [item["key"] for item in (await used(http, "session"))["items"]] == [session_id]


async def test_the_day_of_the_quota_ends_at_midnight(database_url: str, model: OpenAIFake) -> None:
    async with with_quota(database_url, model, 50) as http:
        session = (await http.post("/api/sessions", json={})).json()["id"]
        model.script(Text("Hello."), Tokens(100, 10, 0))
        await ask(http, session)
        connection = await asyncpg.connect(database_url)
        await connection.execute("update usage_entries set at = date_trunc('day', now(), 'UTC') - interval '1 second'")
        await connection.close()
        model.script(Text("Good morning."), Tokens(1, 1, 0))

        assert (await ask(http, session))["finish_reason"] == "stop"
