"""Keys of programs over REST: what is told of them, and that nobody gets further with a key than the key goes."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from services.accounts.api_keys import new_key
from tests.integration.accounts.conftest import Replicas, Visitor, bearer_header, visitor
from tests.integration.auth.conftest import PASSWORD

KEYS = "/api/auth/api-keys"


async def test_a_key_is_shown_once(ada: Visitor):
    until = datetime.now(UTC) + timedelta(days=1)
    body = {"name": " backup ", "scopes": ["read", "chat"], "expires_at": until.isoformat()}
    answer = await ada.http.post(KEYS, json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert made["key"].startswith("clq_")
    assert made["api_key"] == {
        "id": made["api_key"]["id"],
        "name": "backup",
        "last_four": made["key"][-4:],
        "scopes": ["chat", "read"],
        "created_at": made["api_key"]["created_at"],
        "expires_at": made["api_key"]["expires_at"],
        "last_used_at": None,
    }
    assert datetime.fromisoformat(made["api_key"]["expires_at"]) == until
    listed = await ada.http.get(KEYS)
    assert listed.json() == {"items": [made["api_key"]], "next_cursor": None}
    assert made["key"] not in listed.text
    await ada.http.get("/api/sessions", headers=bearer_header(made["key"]))
    assert (await ada.http.get(KEYS)).json()["items"][0]["last_used_at"] is not None


async def test_asking_twice_with_one_idempotency_key_does_not_keep_the_text_of_a_key(ada: Visitor):
    headers = {"idempotency-key": str(uuid4())}
    first, second = [
        await ada.http.post(KEYS, json={"name": "x", "scopes": ["read"]}, headers=headers) for _ in range(2)
    ]
    assert first.json()["key"] != second.json()["key"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": " "},
        {"name": "x" * 201},
        {"name": "a\0b"},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": "read"},
        {"scopes": None},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"surprise": 1},
    ],
)
async def test_what_cannot_be_a_key_is_not_made(ada: Visitor, changes: dict[str, Any]):
    answer = await ada.http.post(KEYS, json={"name": "x", "scopes": ["read"], **changes})
    assert answer.status_code == 422, answer.text
    assert (await ada.http.get(KEYS)).json()["items"] == []


async def test_nobody_sees_or_deletes_the_keys_of_others(ada: Visitor, ben: Visitor):
    key = await ada.key("read")
    assert (await ben.http.get(KEYS)).json()["items"] == []
    for key_id in (ada.keys[key], str(uuid4())):
        assert (await ben.http.delete(f"{KEYS}/{key_id}")).status_code == 404
    assert (await ada.http.get("/api/sessions", headers=bearer_header(key))).status_code == 200


async def test_a_key_goes_as_far_as_its_scopes(ada: Visitor):
    session_id = await ada.session()
    asked = {
        "read": ("GET", f"/api/sessions/{session_id}", None, {200}),
        "write": ("PATCH", f"/api/sessions/{session_id}", {"title": "x"}, {200}),
        "chat": ("POST", f"/api/sessions/{session_id}/interrupt", {}, {202, 409}),
        "admin": ("GET", "/api/auth/users", None, {200}),
    }
    for scope in ("read", "write", "chat"):
        headers = bearer_header(await ada.key(scope))
        for wanted, (method, path, body, good) in asked.items():
            answer = await ada.http.request(method, path, json=body, headers=headers)
            assert answer.status_code in (good if wanted == scope else {403}), (scope, wanted, answer.text)


async def test_with_a_key_nobody_makes_an_account_theirs(replicas: Replicas, stack: AsyncExitStack):
    admin = await visitor(replicas.first, stack, "admin@example.org")
    someone = await visitor(replicas.first, stack)
    key, spare = [await admin.key("read", "write", "chat", "admin") for _ in range(2)]
    sign_in = (await admin.http.get("/api/auth/sign-ins")).json()["items"][0]["id"]
    attempts: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", KEYS, {"name": "one more", "scopes": ["read"]}),
        ("DELETE", f"{KEYS}/{admin.keys[spare]}", None),
        ("POST", "/api/auth/me/password", {"current_password": PASSWORD, "new_password": f"{PASSWORD} x"}),
        ("DELETE", f"/api/auth/sign-ins/{sign_in}", None),
        ("POST", f"/api/auth/users/{admin.user_id}/password-reset", None),
        ("POST", f"/api/auth/users/{someone.user_id}/password-reset", None),
        ("PATCH", f"/api/auth/users/{someone.user_id}", {"is_admin": True}),
    ]
    async with httpx2.AsyncClient(base_url=replicas.second, headers=bearer_header(key), timeout=20) as http:
        assert (await http.get("/api/auth/users")).status_code == 200
        for method, path, body in attempts:
            answer = await http.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_needed"), (path, answer.text)
        assert (await http.delete(f"{KEYS}/{admin.keys[key]}")).status_code == 204, "a key may take away itself"
        assert (await http.get("/api/sessions")).status_code == 401
    assert (await admin.http.get("/api/sessions")).status_code == 200


async def test_what_is_no_key_is_refused_like_a_wrong_one(ada: Visitor):
    answers = [
        await ada.http.get("/api/sessions", headers=bearer_header(shown))
        for shown in (new_key(), "clq_", "clq_" + "0" * 49, "clq_" + "x" * 4000)
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_tickets_over_rest_are_short_and_for_ones_own_sessions(ada: Visitor, ben: Visitor):
    session_id = await ada.session()
    answer = await ada.http.post("/api/auth/ws-ticket", json={"session_id": session_id})
    assert answer.status_code == 200
    assert answer.json() == {"ticket": answer.json()["ticket"], "expires_in": 30}
    assert len(answer.json()["ticket"]) >= 43
    assert (await ben.http.post("/api/auth/ws-ticket", json={"session_id": session_id})).status_code == 404
    assert (await ada.http.post("/api/auth/ws-ticket", json={"session_id": "x"})).status_code == 422
    async with httpx2.AsyncClient(base_url=ada.base_url, timeout=20) as nobody:
        assert (await nobody.post("/api/auth/ws-ticket", json={})).status_code == 401


@pytest.mark.parametrize("never", ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z"])
async def test_a_key_that_would_outlast_the_calendar_is_refused(ada: Visitor, never: str):
    answer = await ada.http.post(KEYS, json={"name": "k", "scopes": ["read"], "expires_at": never})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/expires_at")


async def test_a_right_that_is_named_twice_is_given_once(ada: Visitor):
    answer = await ada.http.post(KEYS, json={"name": "k", "scopes": ["read", "chat", "read"]})
    assert answer.json()["api_key"]["scopes"] == ["chat", "read"]
