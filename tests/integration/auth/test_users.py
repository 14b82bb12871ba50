"""What administrators do with accounts, and what nobody else may."""

import asyncio

import asyncpg
import httpx2
import pytest

from tests.integration.auth.conftest import PASSWORD, Person, address, bearer, logged_in, registered
from tests.integration.rest.reading import problem

USERS = "/api/auth/users"


async def promoted(http: httpx2.AsyncClient, administrator: Person, other: Person) -> None:
    answer = await http.patch(f"{USERS}/{other.id}", json={"is_admin": True}, headers=administrator.headers)
    assert answer.json()["is_admin"] is True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", USERS),
        ("GET", f"{USERS}/{{id}}"),
        ("PATCH", f"{USERS}/{{id}}"),
        ("DELETE", f"{USERS}/{{id}}"),
        ("POST", f"{USERS}/{{id}}/password-reset"),
        ("GET", "/api/auth/invitations"),
        ("POST", "/api/auth/invitations"),
        ("DELETE", "/api/auth/invitations/{id}"),
    ],
)
async def test_only_administrators_look_after_users(
    http: httpx2.AsyncClient, ada: Person, method: str, path: str
) -> None:
    body = {} if method in ("PATCH", "POST") else None

    answer = await http.request(method, path.format(id=ada.id), json=body, headers=ada.headers)

    assert problem(answer, 403, "insufficient_scope")["details"] == {"scope": "admin"}
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="admin"'


async def test_accounts_are_listed_in_pages_newest_first(
    http: httpx2.AsyncClient, administrator: Person, ada: Person, ben: Person
) -> None:
    first = (await http.get(USERS, params={"limit": 1}, headers=administrator.headers)).json()
    second = (
        await http.get(USERS, params={"limit": 1, "cursor": first["next_cursor"]}, headers=administrator.headers)
    ).json()

    assert [page["items"][0]["id"] for page in (first, second)] == [ben.id, ada.id]
    found = (await http.get(USERS, params={"q": ada.email[:20].upper()}, headers=administrator.headers)).json()
    assert [user["id"] for user in found["items"]] == [ada.id]
    one = (await http.get(f"{USERS}/{ada.id}", headers=administrator.headers)).json()
    assert one == ada.user | {"disabled_at": None}


async def test_who_is_disabled_is_out_at_once_and_cannot_come_back(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    answer = await http.patch(f"{USERS}/{ada.id}", json={"is_disabled": True}, headers=administrator.headers)

    assert answer.json()["disabled_at"] is not None
    assert (await http.get("/api/auth/me", headers=ada.headers)).status_code == 401
    assert (await http.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})).status_code == 401
    login = await http.post("/api/auth/login", json={"email": ada.email, "password": PASSWORD})
    problem(login, 401, "wrong_credentials")


async def test_who_is_enabled_again_has_to_sign_in_again(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    for is_disabled in (True, False):
        await http.patch(f"{USERS}/{ada.id}", json={"is_disabled": is_disabled}, headers=administrator.headers)

    assert (await http.get("/api/auth/me", headers=ada.headers)).status_code == 401
    assert (await logged_in(http, ada.email)).id == ada.id


async def test_nobody_gets_in_while_being_disabled(
    http: httpx2.AsyncClient, administrator: Person, ada: Person, database: asyncpg.Connection
) -> None:
    body = {"email": ada.email, "password": PASSWORD}
    for _ in range(5):
        disabling = http.patch(f"{USERS}/{ada.id}", json={"is_disabled": True}, headers=administrator.headers)
        await asyncio.gather(disabling, *(http.post("/api/auth/login", json=body) for _ in range(4)))
        alive = await database.fetchval(
            "select count(*) from sign_ins where user_id = $1 and revoked_at is null", ada.id
        )
        assert alive == 0
        await http.patch(f"{USERS}/{ada.id}", json={"is_disabled": False}, headers=administrator.headers)
    http.cookies.clear()


async def test_what_administrators_may_is_theirs_from_the_next_request_on(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    await promoted(http, administrator, ada)
    assert (await http.get(USERS, headers=ada.headers)).status_code == 200

    await http.patch(f"{USERS}/{ada.id}", json={"is_admin": False}, headers=administrator.headers)
    assert (await http.get(USERS, headers=ada.headers)).status_code == 403


async def test_the_last_administrator_stays(http: httpx2.AsyncClient, administrator: Person) -> None:
    path = f"{USERS}/{administrator.id}"

    for body in ({"is_admin": False}, {"is_disabled": True}):
        problem(await http.patch(path, json=body, headers=administrator.headers), 409, "last_administrator")
    problem(await http.delete(path, headers=administrator.headers), 409, "last_administrator")
    assert (await http.get(USERS, headers=administrator.headers)).status_code == 200


async def test_of_two_administrators_who_turn_on_each_other_one_stays(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    await promoted(http, administrator, ada)
    no_more = {"is_admin": False}

    answers = await asyncio.gather(
        http.patch(f"{USERS}/{ada.id}", json=no_more, headers=administrator.headers),
        http.patch(f"{USERS}/{administrator.id}", json=no_more, headers=ada.headers),
    )

    # The slower one is not an administrator any more, or would be the last: both are well.
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in (403, 409)
    left = administrator if answers[0].status_code == 200 else ada
    await promoted(http, left, administrator)
    await http.patch(f"{USERS}/{ada.id}", json=no_more, headers=administrator.headers)


async def test_a_deleted_user_is_gone_with_everything(
    http: httpx2.AsyncClient, administrator: Person, ada: Person, database: asyncpg.Connection
) -> None:
    session = (await http.post("/api/sessions", json={}, headers=ada.headers)).json()["id"]
    sent = await http.post(f"/api/sessions/{session}/messages", json={"content": "Hello"}, headers=ada.headers)
    assert sent.status_code == 200
    uploads = {"file": ("note.txt", b"a note", "text/plain")}
    assert (await http.post(f"/api/sessions/{session}/files", files=uploads, headers=ada.headers)).is_success
    await http.post("/api/personas", json={"name": "Ada's"}, headers=ada.headers)

    answer = await http.delete(f"{USERS}/{ada.id}", headers=administrator.headers)

    assert answer.status_code == 204
    assert await database.fetchval("select count(*) from sessions where owner_id = $1", ada.id) == 0
    assert (await http.get("/api/auth/me", headers=ada.headers)).status_code == 401
    problem(await http.get(f"{USERS}/{ada.id}", headers=administrator.headers), 404, "not_found")
    assert (await registered(http, ada.email)).id != ada.id


async def test_a_forgotten_password_is_replaced_by_one_that_is_shown_once(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    answer = await http.post(f"{USERS}/{ada.id}/password-reset", headers=administrator.headers)

    assert (await http.get("/api/auth/me", headers=ada.headers)).status_code == 401
    assert (await logged_in(http, ada.email, answer.json()["password"])).id == ada.id


async def test_people_see_where_they_are_signed_in_and_can_end_it(
    http: httpx2.AsyncClient, ada: Person, ben: Person
) -> None:
    agent = {b"user-agent": b"Phone\xad <b>"}  # a soft hyphen, which nobody sees
    body = {"email": ada.email, "password": PASSWORD}
    phone = (await http.post("/api/auth/login", json=body, headers=list(agent.items()))).json()

    found = (await http.get("/api/auth/sign-ins", headers=ada.headers)).json()["items"]

    assert found[0]["user_agent"] == "Phone <b>"
    assert [one["is_current"] for one in found] == [False, True]
    path = f"/api/auth/sign-ins/{found[0]['id']}"
    problem(await http.delete(path, headers=ben.headers), 404, "not_found")
    assert (await http.delete(path, headers=ada.headers)).status_code == 204
    problem(await http.delete(path, headers=ada.headers), 404, "not_found")
    assert (await http.get("/api/auth/me", headers=bearer(phone["access_token"]))).status_code == 401
    assert len((await http.get("/api/auth/sign-ins", headers=ada.headers)).json()["items"]) == 1


async def test_what_people_did_with_their_accounts_is_noted(
    http: httpx2.AsyncClient, administrator: Person, ada: Person
) -> None:
    await http.post("/api/auth/login", json={"email": ada.email, "password": "not the right one"})
    await http.post("/api/auth/logout", headers=ada.headers)
    await http.patch(f"{USERS}/{ada.id}", json={"is_disabled": True}, headers=administrator.headers)

    entries = (await http.get("/api/audit", params={"limit": 20}, headers=administrator.headers)).json()["items"]

    noted = [(one["action"], one["outcome"]) for one in entries if one["subject"]["id"] == ada.id]
    assert noted == [
        ("user.disable", "done"),
        ("user.sign_out", "done"),
        ("user.sign_in", "refused"),
        ("user.sign_in", "done"),
        ("user.register", "done"),
    ]
    assert PASSWORD not in str(entries)


async def test_an_invitation_is_made_listed_and_taken_back(http: httpx2.AsyncClient, administrator: Person) -> None:
    body = {"email": address().upper(), "days": 3}
    made = await http.post("/api/auth/invitations", json=body, headers=administrator.headers)

    assert made.status_code == 201
    invitation = made.json()["invitation"]
    assert invitation["email"] == body["email"].lower()
    listed = await http.get("/api/auth/invitations", headers=administrator.headers)
    assert listed.json()["items"][0] == invitation
    assert made.json()["invite_code"] not in listed.text
    path = f"/api/auth/invitations/{invitation['id']}"
    assert (await http.delete(path, headers=administrator.headers)).status_code == 204
    problem(await http.delete(path, headers=administrator.headers), 404, "not_found")


async def test_who_has_an_account_is_not_invited(http: httpx2.AsyncClient, administrator: Person, ada: Person) -> None:
    answer = await http.post("/api/auth/invitations", json={"email": ada.email}, headers=administrator.headers)

    problem(answer, 409, "email_taken", "/email")
