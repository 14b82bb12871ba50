"""The audit log over REST."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from tests.integration.rest.reading import problem

DOORS = ("/api/audit", "/api/auth/me/audit")


async def entries(http: httpx2.AsyncClient, request_id: str, **params: Any) -> list[dict[str, Any]]:
    """What was noted of the request of that name, newest first."""
    found = (await http.get("/api/audit", params={"limit": 100, **params})).raise_for_status().json()["items"]
    return [entry for entry in found if entry["request_id"] == request_id]


async def test_every_deletion_is_noted_with_the_request_that_asked_for_it(http: httpx2.AsyncClient) -> None:
    named = {"x-request-id": f"audit-{uuid4()}"}
    session = (await http.post("/api/sessions", json={})).json()["id"]
    persona = (await http.post("/api/personas", json={"name": f"P {uuid4()}"})).json()["id"]
    module = (await http.post("/api/modules", json={"name": f"m_{uuid4().hex}"})).json()["id"]
    note = {"conversation_id": session, "role": "user", "content": "Hello"}
    message = (await http.post("/api/messages", json=note)).raise_for_status().json()["id"]
    file = (await http.post(f"/api/sessions/{session}/files", files={"file": ("a.txt", b"x")})).json()["id"]

    for path in (
        f"/api/messages/{message}",
        f"/api/sessions/{session}/files/{file}",
        f"/api/sessions/{session}/memories",
        f"/api/personas/{persona}",
        f"/api/modules/{module}",
        f"/api/conversations/{session}",
    ):
        assert (await http.delete(path, headers=named)).status_code == 204, path

    noted = await entries(http, named["x-request-id"])
    assert [(entry["action"], entry["subject"]["id"]) for entry in reversed(noted)] == [
        ("message.delete", message),
        ("file.delete", file),
        ("session.clear_memories", session),
        ("persona.delete", persona),
        ("module.delete", module),
        ("session.delete", session),
    ]
    assert {entry["user_id"] for entry in noted} == {str(LOCAL_OWNER)}
    assert {entry["outcome"] for entry in noted} == {"done"}
    assert {entry["address"] for entry in noted} == {"127.0.0.1"}


async def test_what_goes_out_as_a_document_and_comes_in_is_noted(http: httpx2.AsyncClient, session_id: str) -> None:
    named = {"x-request-id": f"audit-{uuid4()}"}

    document = (await http.get(f"/api/sessions/{session_id}/export", headers=named)).json()
    imported = (await http.post("/api/sessions/import", json=document, headers=named)).json()["session"]["id"]
    library = (await http.get("/api/personas/export", headers=named)).json()
    (await http.post("/api/personas/import", json=library, headers=named)).raise_for_status()

    noted = await entries(http, named["x-request-id"])
    assert [(entry["action"], entry["subject"]["id"]) for entry in reversed(noted)] == [
        ("session.export", session_id),
        ("session.import", imported),
        ("library.export", None),
        ("library.import", None),
    ]


async def test_what_is_done_to_connections_is_noted_without_their_keys(http: httpx2.AsyncClient) -> None:
    named = {"x-request-id": f"audit-{uuid4()}"}
    new = {
        "name": f"C {uuid4()}",
        "kind": "openai",
        "base_url": "https://models.example.com/v1",
        "api_key": "0123456789",
    }

    saved = (await http.post("/api/connections", json=new, headers=named)).raise_for_status().json()["id"]
    path = f"/api/connections/{saved}"
    (await http.patch(path, json={"api_key": "9876543210"}, headers=named)).raise_for_status()
    (await http.delete(path, headers=named)).raise_for_status()

    noted = list(reversed(await entries(http, named["x-request-id"])))
    assert [entry["action"] for entry in noted] == ["connection.create", "connection.change", "connection.delete"]
    assert {entry["subject"]["id"] for entry in noted} == {saved}
    assert noted[1]["details"] == {"fields": "api_key"}
    assert "0123456789" not in str(noted)


async def test_what_did_not_happen_is_not_noted(http: httpx2.AsyncClient) -> None:
    named = {"x-request-id": f"audit-{uuid4()}"}

    for path in ("personas", "modules", "sessions", "messages"):
        problem(await http.delete(f"/api/{path}/{new_id()}", headers=named), 404, "not_found")

    assert await entries(http, named["x-request-id"]) == []


@pytest.mark.parametrize("door", DOORS)
async def test_entries_are_read_in_pages_newest_first(
    http: httpx2.AsyncClient, database: asyncpg.Connection, door: str
) -> None:
    ids = [str(new_id()) for _ in range(3)]
    for id in ids:
        await database.execute(
            """
            insert into audit_log (id, user_id, action, subject_kind, outcome)
            values ($1, $2, 'invitation.create', 'invitation', 'done')
            """,
            id,
            LOCAL_OWNER,
        )

    first = await http.get(door, params={"action": "invitation.create", "limit": 2})
    rest = await http.get(first.links["next"]["url"])

    assert [entry["id"] for entry in first.json()["items"]] == [ids[2], ids[1]]
    assert rest.json()["items"][0]["id"] == ids[0]
    assert first.json()["items"][0]["credential"] is None


async def test_entries_are_found_by_user_and_time(http: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    user, now = new_id(), datetime.now(UTC)
    for hours in (3, 2, 1):
        await database.execute(
            """
            insert into audit_log (id, at, user_id, action, subject_kind, subject_id, outcome)
            values ($1, $2, $3, 'user.sign_in', 'user', $4, 'refused')
            """,
            new_id(),
            now - timedelta(hours=hours),
            user,
            str(hours),
        )
    between = {"from": (now - timedelta(hours=2.5)).isoformat(), "to": (now - timedelta(hours=1.5)).isoformat()}

    of_user = (await http.get("/api/audit", params={"user_id": str(user)})).json()["items"]
    of_time = (await http.get("/api/audit", params={"user_id": str(user), **between})).json()["items"]
    of_all = (await http.get("/api/audit", params={"action": "user.sign_in", **between})).json()["items"]
    own = (await http.get("/api/auth/me/audit", params=between)).json()["items"]

    assert [entry["subject"]["id"] for entry in of_user] == ["1", "2", "3"]
    assert [entry["subject"]["id"] for entry in of_time] == ["2"]
    assert "2" in [entry["subject"]["id"] for entry in of_all]
    assert own == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("action=nonsense", "/action"),
        ("from=2026-01-01T00:00:00", "/from"),
        ("cursor=x", "/cursor"),
        ("limit=0", "/limit"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(
    http: httpx2.AsyncClient, door: str, query: str, at: str
) -> None:
    problem(await http.get(f"{door}?{query}"), 422, "invalid_request", at)
