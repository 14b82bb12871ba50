"""Going on from any message in a session of its own."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, call
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem


async def say(http: httpx2.AsyncClient, session_id: str, content: str) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": content})
    return answer.raise_for_status().json()


async def read(http: httpx2.AsyncClient, session_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get(f"/api/sessions/{session_id}/messages", params={"limit": 100, **query})
    return answer.raise_for_status().json()["items"][::-1]


async def fork(http: httpx2.AsyncClient, session_id: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/fork", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/sessions/{answer.json()['id']}"
    return answer.json()


OWN = ("role", "content", "parts", "token_count", "finish_reason", "provider", "model", "metadata", "created_at")


def contents(messages: list[dict[str, Any]]) -> list[Any]:
    return [{name: message[name] for name in OWN} for message in messages]


async def test_a_fork_has_the_branch_and_the_settings_and_goes_its_own_way(
    http: httpx2.AsyncClient, persona: dict[str, Any], model: OpenAIFake
) -> None:
    given = {
        "persona_id": persona["id"],
        "title": "Ships",
        "pinned": True,
        "model": "fake-large",
        "controls": {"temperature": 0.5},
        "metadata": {"colour": "blue"},
    }
    session = (await http.post("/api/sessions", json=given)).json()
    first = await say(http, session["id"], "One")
    await say(http, session["id"], "Two")
    await http.post(f"/api/sessions/{session['id']}/regenerate", json={"message_id": first["message"]["id"]})
    await say(http, session["id"], "Three")
    before = await read(http, session["id"], all=True)

    forked = await fork(http, session["id"])

    assert {name: forked[name] for name in given} == given | {"pinned": False}
    assert (forked["seq"], forked["version"], forked["active_run_id"]) == (0, 1, None)
    history = await read(http, forked["id"])
    assert contents(history) == contents(await read(http, session["id"]))
    assert [message["content"] for message in history] == [
        "Good morning.",
        "One",
        "Hello there.",
        "Three",
        "Hello there.",
    ]
    assert len(await read(http, forked["id"], all=True)) == 5, "other branches stay behind"
    assert forked["active_message_id"] == history[-1]["id"]
    assert [message["parent_id"] for message in history] == [None, *(message["id"] for message in history[:-1])]
    assert {message["run_id"] for message in history} == {None}
    assert not {message["id"] for message in history} & {message["id"] for message in before}
    assert sorted(message["id"] for message in history) == [message["id"] for message in history]

    await say(http, forked["id"], "Elsewhere")
    told = [message["content"] for message in (await model.request(-1)).body["messages"] if message["role"] != "system"]
    assert told == [*(message["content"] for message in history), "Elsewhere"]
    assert await read(http, session["id"], all=True) == before


async def test_a_fork_ends_with_the_message_that_is_named(http: httpx2.AsyncClient, session_id: str) -> None:
    first = await say(http, session_id, "One")
    await say(http, session_id, "Two")

    for message, expected in ((first["message"], ["One", "Hello there."]), (first["user_message"], ["One"])):
        forked = await fork(http, session_id, message_id=message["id"], title="Elsewhere")
        assert [one["content"] for one in await read(http, forked["id"])] == expected
        assert forked["title"] == "Elsewhere"


async def test_an_empty_session_can_be_forked(http: httpx2.AsyncClient, session_id: str) -> None:
    answer = await http.post(f"/api/conversations/{session_id}/fork")
    assert answer.status_code == 201
    assert answer.headers["location"].startswith("/api/conversations/")
    assert await read(http, answer.json()["id"]) == []
    await say(http, answer.json()["id"], "Hi")


async def test_what_the_model_was_told_of_tools_goes_along(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    model.script(Text("Looking. "), call(0, "no_such_tool", {}))
    model.reply("Nothing.")
    await say(http, session_id, "Find it")

    forked = await fork(http, session_id)
    await say(http, forked["id"], "Again")

    roles = [message["role"] for message in (await model.request(2)).body["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


async def test_references_to_messages_and_files_are_to_the_copies(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    form = {"file": ("notes.txt", b"some words", "text/plain")}
    file = (await http.post(f"/api/sessions/{session_id}/files", files=form)).raise_for_status().json()
    first = await say(http, session_id, "One")
    asked, reply = UUID(first["user_message"]["id"]), UUID(first["message"]["id"])
    parts = [{"type": "user_message", "message_id": str(asked)}, {"type": "file", "file_id": file["id"]}]
    await database.execute("update messages set parts = $2 where id = $1", reply, json.dumps(parts))
    await database.execute(
        "insert into context_items values ($1, $2, 0, $3, 7)",
        UUID(session_id),
        reply,
        json.dumps({"role": "user", "text": "One", "message_id": str(asked), "files": [{"id": file["id"]}]}),
    )

    forked = await fork(http, session_id)

    question, answer = await read(http, forked["id"])
    (copy,) = (await http.get(f"/api/sessions/{forked['id']}/files")).json()["items"]
    assert (copy["name"], copy["id"] != file["id"]) == ("notes.txt", True)
    assert answer["parts"] == [
        {"type": "user_message", "message_id": question["id"]},
        {"type": "file", "file_id": copy["id"]},
    ]
    body = json.loads(
        await database.fetchval("select body from context_items where message_id = $1", UUID(answer["id"]))
    )
    assert (body["message_id"], body["files"]) == (question["id"], [{"id": copy["id"]}])
    await http.delete(f"/api/sessions/{session_id}")
    kept = await http.get(f"/api/sessions/{forked['id']}/files/{copy['id']}")
    assert (kept.status_code, kept.content) == (200, b"some words")


async def test_what_modules_remember_goes_along_as_far_as_it_belongs_to_that_past(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    first = await say(http, session_id, "One")
    second = await say(http, session_id, "Two")
    here = UUID(session_id)
    early, late = new_id(), new_id()
    for module_id, run_id in ((early, first["run_id"]), (late, second["run_id"])):
        await database.execute(
            "insert into modules (id, owner_id, name) values ($1, $2, $3)", module_id, LOCAL_OWNER, f"m{module_id.hex}"
        )
        await database.execute(
            "insert into module_results values ($1, $2, $3, 9, 'spoke')",
            here,
            module_id,
            UUID(run_id),
        )
        await database.execute(
            "insert into module_variables (session_id, module_id, name, value) values ($1, $2, 'x', '1')",
            here,
            module_id,
        )
    for content, last in (("of the first", 1), ("of all", 3)):
        await database.execute(
            """
            insert into memories (id, session_id, owner_id, content, first_message, last_message)
            values ($1, $2, $3, $4, 0, $5)
            """,
            new_id(),
            here,
            LOCAL_OWNER,
            content,
            last,
        )

    whole, part = await fork(http, session_id), await fork(http, session_id, message_id=first["message"]["id"])

    async def of(table: str, session: dict[str, Any], column: str) -> set[Any]:
        rows = await database.fetch(f"select {column} from {table} where session_id = $1", UUID(session["id"]))
        return {row[0] for row in rows}

    assert await of("module_results", whole, "module_id") == {early, late}
    assert await of("module_results", part, "module_id") == {early}
    assert await of("module_results", whole, "run_seq") == {0}
    assert await of("module_variables", whole, "module_id") == {early, late}
    assert await of("module_variables", part, "module_id") == set()
    assert await of("memories", whole, "content") == {"of the first", "of all"}
    assert await of("memories", part, "content") == {"of the first"}


async def test_a_long_session_is_forked_in_the_database(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    ids = [new_id() for _ in range(10_000)]
    await database.execute(
        """
        insert into messages (id, session_id, parent_id, role, content, token_count)
        select id, $1, parent, 'user', 'message ' || id, 1 from unnest($2::uuid[], $3::uuid[]) as t (id, parent)
        """,
        UUID(session_id),
        ids,
        [None, *ids[:-1]],
    )
    await database.execute("update sessions set active_leaf_id = $2 where id = $1", UUID(session_id), ids[-1])

    forked = await fork(http, session_id)

    count = await database.fetchval("select count(*) from messages where session_id = $1", UUID(forked["id"]))
    newest = await read(http, forked["id"])
    assert (count, newest[-1]["content"]) == (10_000, f"message {ids[-1]}")


async def test_what_is_not_there_cannot_be_forked(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, database: asyncpg.Connection
) -> None:
    other = (await http.post("/api/sessions")).json()["id"]
    elsewhere = (await say(http, other, "Elsewhere"))["message"]["id"]
    count = await database.fetchval("select count(*) from sessions")

    for session in (str(stranger.session_id), str(uuid4())):
        problem(await http.post(f"/api/sessions/{session}/fork", json={}), 404, "not_found")
    for message in (elsewhere, str(stranger.message_id), str(uuid4())):
        answer = await http.post(f"/api/sessions/{session_id}/fork", json={"message_id": message})
        problem(answer, 404, "not_found", "/message_id")
    assert await database.fetchval("select count(*) from sessions") == count


@pytest.mark.parametrize("body", [{"message_id": "x"}, {"title": ""}, {"title": "x" * 201}, {"surprise": 1}, []])
async def test_a_malformed_fork_is_refused(http: httpx2.AsyncClient, session_id: str, body: Any) -> None:
    problem(await http.post(f"/api/sessions/{session_id}/fork", json=body), 422, "invalid_request")
