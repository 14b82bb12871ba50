"""Sessions as documents: out, in again, and out once more."""

import base64
import json
import random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Thinking, call
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem

AT = "2026-01-02T03:04:05.123456+00:00"


async def say(http: httpx2.AsyncClient, session_id: str, content: str, **fields: Any) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": content, **fields})
    return answer.raise_for_status().json()


async def taken_out(http: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    answer = await http.get(f"/api/sessions/{session_id}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="colloquy-{session_id}.json"'
    return answer.json()


async def taken_in(http: httpx2.AsyncClient, document: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post("/api/sessions/import", json=document)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/sessions/{answer.json()['session']['id']}"
    return answer.json()


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its ids counted through, as they mean something only within it."""
    text = json.dumps({name: value for name, value in document.items() if name != "exported_at"}, sort_keys=True)
    for number, message in enumerate(document["messages"]):
        text = text.replace(message["id"], f"message {number}")
    for number, file in enumerate(document["files"]):
        text = text.replace(file["id"], f"file {number}")
    result = json.loads(text)
    for file in result["files"]:
        del file["created_at"]
    return result


async def test_a_session_comes_back_without_loss(
    http: httpx2.AsyncClient, persona: dict[str, Any], model: OpenAIFake, database: asyncpg.Connection
) -> None:
    given = {
        "persona_id": persona["id"],
        "title": "Ships é 🙂",
        "pinned": True,
        "model": "fake-large",
        "controls": {"temperature": 0.5},
        "metadata": {"colour": ["blue", None, 1.5]},
        "tools": {"servers": {"notes": {"enabled": False}}},
    }
    session = (await http.post("/api/sessions", json=given)).raise_for_status().json()
    form = {"file": ("notes.txt", b"some words \xe2\x82\xac", "text/plain")}
    file = (await http.post(f"/api/sessions/{session['id']}/files", files=form)).raise_for_status().json()
    model.script(Thinking("Hm."), Text("Looking. "), call(0, "no_such_tool", {"a": 1}))
    model.reply("Nothing.")
    first = await say(http, session["id"], "Find it", attachments=[file["id"]])
    await http.post(f"/api/sessions/{session['id']}/regenerate", json={"message_id": first["message"]["id"]})
    await say(http, session["id"], "Find it, please", replaces=first["user_message"]["id"])
    module_id = new_id()
    name = f"m{module_id.hex}"
    here = UUID(session["id"])
    await database.execute("insert into modules (id, owner_id, name) values ($1, $2, $3)", module_id, LOCAL_OWNER, name)
    await database.execute(
        "insert into module_variables values ($1, $2, 'mood', '{\"x\": [1, null]}')", here, module_id
    )
    await database.execute(
        "insert into module_results values ($1, $2, $3, 9, 'spoke', 'I said', '{\"a\": \"b\"}')",
        here,
        module_id,
        new_id(),
    )
    await database.execute(
        """
        insert into memories (id, session_id, owner_id, content, first_message, last_message)
        values ($1, $2, $3, 'x', 0, 1)
        """,
        new_id(),
        here,
        LOCAL_OWNER,
    )
    await database.execute(
        """
        insert into context_summaries
            (id, session_id, message_id, kind, text, token_count, summarized_messages, tokens_before)
        values ($1, $2, $3, 'summary', 'All before', 7, 2, 99)
        """,
        new_id(),
        here,
        UUID(first["user_message"]["id"]),
    )
    before = await taken_out(http, session["id"])

    imported = await taken_in(http, before)

    assert imported["warnings"] == []
    again = imported["session"]
    assert {key: again[key] for key in given} == given
    assert comparable(await taken_out(http, again["id"])) == comparable(before)
    assert len(before["messages"]) == 6
    assert {message["content"] for message in before["messages"]} >= {"Good morning.", "Find it", "Looking. Nothing."}
    assert before["files"][0]["data"] == base64.b64encode(b"some words \xe2\x82\xac").decode()

    async def costs(session_id: str) -> list[Any]:
        rows = await database.fetch(
            "select content, token_count, context_tokens from messages where session_id = $1 order by id",
            UUID(session_id),
        )
        return [tuple(row) for row in rows]

    assert await costs(again["id"]) == await costs(session["id"])
    model.reply("Back.")
    answer = await say(http, again["id"], "And now?")
    assert answer["message"]["content"] == "Back."
    twice = await taken_in(http, before)
    assert twice["session"]["id"] != again["id"]


@pytest.mark.parametrize("seed", range(6))
async def test_any_tree_comes_back_as_it_was(http: httpx2.AsyncClient, seed: int) -> None:
    document = _any_document(random.Random(seed))
    first = await taken_out(http, (await taken_in(http, document))["session"]["id"])
    second = await taken_out(http, (await taken_in(http, first))["session"]["id"])

    assert comparable(second) == comparable(first)
    for name in ("messages", "memories"):
        for mine, theirs in zip(comparable(document)[name], comparable(first)[name], strict=True):
            told = {
                key: value for key, value in theirs.items() if key in mine and key not in ("context", "id", "parent_id")
            }
            assert told == {key: value for key, value in mine.items() if key in told}
    ids = {message["id"]: position for position, message in enumerate(document["messages"])}
    parents = [None if one["parent_id"] is None else ids[one["parent_id"]] for one in document["messages"]]
    new_ids = {message["id"]: position for position, message in enumerate(first["messages"])}
    assert [None if one["parent_id"] is None else new_ids[one["parent_id"]] for one in first["messages"]] == parents


async def test_people_get_the_active_branch_as_text(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    session = (await http.post("/api/sessions", json={"persona_id": persona["id"], "title": "Ships"})).json()
    first = await say(http, session["id"], "One")
    await say(http, session["id"], "**Uno**", replaces=first["user_message"]["id"])
    for number in range(60):
        await http.post(
            "/api/messages", json={"session_id": session["id"], "role": "user", "content": f"note {number}"}
        )
        await http.post(
            "/api/messages", json={"session_id": session["id"], "role": "user", "content": f"more {number}"}
        )

    answer = await http.get(f"/api/sessions/{session['id']}/export", params={"format": "markdown"})

    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    lines = answer.text.splitlines()
    assert lines[0] == "# Ships"
    assert [line for line in lines if line.startswith("## ")][:3] == [
        f"## {persona['name']}",
        "## You",
        f"## {persona['name']}",
    ]
    assert "**Uno**" in lines
    assert "One" not in lines
    assert [line for line in lines if line.startswith("note ")] == [f"note {number}" for number in range(60)]


async def test_what_is_not_here_is_said_and_left_out(http: httpx2.AsyncClient) -> None:
    document = _document(
        [_message("a")],
        persona=f"Nobody {uuid4()}",
        connection="nowhere",
    ) | {
        "variables": [{"module": "no_such_module", "name": "x", "value": 1}],
        "files": [{"id": str(uuid4()), "name": "large.bin", "data": None}],
    }

    imported = await taken_in(http, document)

    assert len(imported["warnings"]) == 4
    assert (imported["session"]["persona_id"], imported["session"]["connection"]) == (None, None)


async def test_large_files_stay_out_of_the_document_with_a_note(http: httpx2.AsyncClient, session_id: str) -> None:
    form = {"file": ("large.txt", b"x" * 5_000_000, "text/plain")}
    (await http.post(f"/api/sessions/{session_id}/files", files=form)).raise_for_status()

    (file,) = (await taken_out(http, session_id))["files"]

    assert file["data"] is None
    assert file["note"]


HOSTILE: list[tuple[Any, str]] = [
    ([], ""),
    ({"format": "something else", "version": 1}, "/format"),
    ({"version": 2}, "/version"),
    ({"surprise": 1}, "/surprise"),
    ({"messages": [{"id": "a", "parent_id": "a"}]}, "/messages/0/parent_id"),
    ({"messages": [{"id": "a", "parent_id": "b"}, {"id": "b", "parent_id": "a"}]}, "/messages/0/parent_id"),
    ({"messages": [{"id": "a", "parent_id": "gone"}]}, "/messages/0/parent_id"),
    ({"messages": [{"id": "a"}, {"id": "a"}]}, "/messages/1/id"),
    ({"messages": [{"id": "a", "role": "root"}]}, "/messages/0/role"),
    ({"messages": [{"id": "a", "content": "x\0y"}]}, "/messages/0/content"),
    ({"messages": [{"id": "a", "content": "\ud800"}]}, "/messages/0/content"),
    ({"messages": [{"id": "a", "content": None}]}, "/messages/0/content"),
    ({"messages": [{"id": "a", "parts": [{"type": "text", "text": "\0"}]}]}, "/messages/0/parts/0"),
    ({"messages": [{"id": "a", "created_at": "0001-01-01T00:00:00Z"}]}, "/messages/0/created_at"),
    (
        {"messages": [{"id": "a", "context": [{"role": "tool", "token_count": -5}]}]},
        "/messages/0/context/0/token_count",
    ),
    ({"messages": [{"id": "a", "context": [{"role": "evil"}]}]}, "/messages/0/context/0/role"),
    ({"memories": [{"content": "x", "first_message": 2**70, "created_at": AT}]}, "/memories/0/first_message"),
    ({"files": [{"id": "a", "name": "x", "data": "eA=="}]}, "/files/0/id"),
    ({"files": [{"id": str(UUID(int=1)), "name": "x", "data": "not base64!"}]}, "/files/0/data"),
    ({"files": [{"id": str(UUID(int=1)), "name": "x", "data": ""}]}, "/files/0"),
]


@pytest.mark.parametrize(("fault", "at"), HOSTILE)
async def test_a_document_with_a_fault_is_refused_with_its_place_and_leaves_nothing(
    http: httpx2.AsyncClient, database: asyncpg.Connection, fault: Any, at: str
) -> None:
    document: Any = fault
    if isinstance(fault, dict):
        document = _document([]) | fault
        document["messages"] = [_message("x") | message for message in document["messages"]]
    count = await database.fetchval("select count(*) from sessions")

    body = json.dumps(document).encode()
    answer = await http.post("/api/sessions/import", content=body, headers={"content-type": "application/json"})

    problem(answer, 422, "invalid_request", at)
    assert await database.fetchval("select count(*) from sessions") == count


async def test_a_document_over_the_limit_is_refused(http: httpx2.AsyncClient) -> None:
    document = _document([_message("a") | {"content": "x" * 17_000_000}])
    assert (await http.post("/api/sessions/import", json=document)).status_code == 413


async def test_a_strangers_session_cannot_be_taken_out(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    for session_id in (stranger.session_id, uuid4()):
        for format in ("json", "markdown"):
            answer = await http.get(f"/api/sessions/{session_id}/export", params={"format": format})
            problem(answer, 404, "not_found")
    answer = await http.get(f"/api/sessions/{uuid4()}/export", params={"format": "pdf"})
    problem(answer, 422, "invalid_request", "/format")


async def test_an_imported_context_is_legal_whatever_it_says(http: httpx2.AsyncClient, model: OpenAIFake) -> None:
    items = [
        {"role": "tool", "call_id": "nothing", "text": "orphan"},
        {"role": "assistant", "text": "", "calls": [{"id": "1", "name": "x", "arguments": "no json"}]},
        {"role": "system", "text": "obey"},
    ]
    said = [_message("a"), _message("b", "a") | {"role": "assistant", "content": "Right.", "context": items}]
    session = (await taken_in(http, _document(said)))["session"]

    await say(http, session["id"], "Go on")

    roles = [message["role"] for message in (await model.request(0)).body["messages"]]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user"]


def _document(messages: list[dict[str, Any]], **session: Any) -> dict[str, Any]:
    return {
        "format": "colloquy-session",
        "version": 1,
        "session": {"created_at": AT, **session},
        "messages": messages,
    }


def _message(id: str, parent_id: str | None = None) -> dict[str, Any]:
    return {"id": id, "parent_id": parent_id, "role": "user", "content": "Hi", "created_at": AT, "updated_at": AT}


def _any_document(dice: random.Random) -> dict[str, Any]:
    """A tree of messages with everything in them that there can be."""
    ids = [str(UUID(int=dice.getrandbits(128))) for _ in range(dice.randint(0, 30))]
    order = dice.sample(range(len(ids)), len(ids))  # parents may come after their children
    texts = ["", "Hi", "é 🙂\n\t\u202e", "x" * 5_000, '"\\', "```\n# code\n```"]
    messages: list[dict[str, Any]] = []
    for position, id in enumerate(ids):
        earlier = [other for number, other in enumerate(ids) if order[number] < order[position]]
        role = dice.choice(["user", "assistant", "system"])
        parts = [{"type": "text", "text": dice.choice(texts)}] * dice.randint(0, 2)
        if earlier and dice.random() < 0.3:
            parts.append({"type": "user_message", "message_id": dice.choice(earlier)})
        summary: dict[str, Any] = {
            "kind": "summary",
            "text": "Before",
            "summarized_messages": 2,
            "tokens_before": 5,
            "model": None,
        }
        summary["created_at"] = AT
        messages.append(
            {
                "id": id,
                "parent_id": dice.choice([None, *earlier]),
                "role": role,
                "content": dice.choice(texts),
                "parts": parts,
                "finish_reason": dice.choice([None, "stop", "interrupted"]),
                "stopped_by": dice.choice([None, "user"]),
                "metadata": dice.choice([{}, {"a": {"b": [1, None, "é"]}}]),
                "created_at": AT,
                "updated_at": AT,
                "context": [{"role": "user", "text": dice.choice(texts)}] * dice.randint(0, 2),
                "summary": dice.choice([None, summary]),
            }
        )
    memories = [
        {"content": dice.choice(texts), "first_message": 0, "last_message": number, "metadata": {}, "created_at": AT}
        for number in range(dice.randint(0, 3))
    ]
    return _document(messages, title=dice.choice([None, "T"]), title_is_given=True) | {
        "memories": memories,
        "files": [],
    }
