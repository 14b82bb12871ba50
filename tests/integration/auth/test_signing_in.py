"""Registering, signing in, going on, signing out."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import httpx2
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from tests.integration.auth.conftest import PASSWORD, Person, address, bearer, logged_in, person, registered
from tests.integration.rest.reading import problem

REFRESH = "/api/auth/refresh"


async def me(http: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await http.get("/api/auth/me", headers=bearer(token))


async def refreshed(http: httpx2.AsyncClient, token: str) -> httpx2.Response:
    answer = await http.post(REFRESH, json={"refresh_token": token})
    http.cookies.clear()
    return answer


async def test_whoever_registers_is_signed_in(http: httpx2.AsyncClient) -> None:
    email = address()
    answer = await http.post("/api/auth/register", json={"email": email.upper(), "password": PASSWORD})

    assert answer.status_code == 201
    body = answer.json()
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 900
    assert (body["user"]["email"], body["user"]["display_name"]) == (email, email.partition("@")[0])
    assert body["user"]["is_admin"] is False
    assert (await me(http, body["access_token"])).json() == body["user"]


async def test_the_refresh_token_is_a_cookie_that_only_the_auth_routes_get(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/auth/register", json={"email": address(), "password": PASSWORD})

    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name == f"colloquy_refresh={answer.json()['refresh_token']}"
    assert {one.lower() for one in attributes} == {"httponly", "samesite=strict", "path=/api/auth", "max-age=2592000"}


async def test_a_sign_in_goes_on_with_the_cookie_alone(http: httpx2.AsyncClient) -> None:
    first = person(await http.post("/api/auth/register", json={"email": address(), "password": PASSWORD}))

    second = person(await http.post(REFRESH))

    assert second.id == first.id
    assert second.refresh_token != first.refresh_token
    assert (await me(http, second.access_token)).status_code == 200
    assert (await http.post(REFRESH)).status_code == 200  # with the cookie that came with the second


async def test_a_foreign_page_cannot_make_a_sign_in_go_on(http: httpx2.AsyncClient) -> None:
    await http.post("/api/auth/register", json={"email": address(), "password": PASSWORD})

    for path in (REFRESH, "/api/auth/logout"):
        answer = await http.post(path, headers={"origin": "https://evil.example"})
        problem(answer, 403, "foreign_origin")
    assert (await http.post(REFRESH)).status_code == 200


async def test_nobody_is_known_without_a_token(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/sessions")

    problem(answer, 401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic YTpi", "Bearer x", "Bearer a.b.c", "bearer clq_unknown", "Bearer " + "a" * 5000],
)
async def test_what_shows_nobody_is_refused(http: httpx2.AsyncClient, header: str) -> None:
    answer = await http.get("/api/sessions", headers={"authorization": header})

    problem(answer, 401, "not_authenticated")


async def test_two_authorization_headers_are_one_too_many(http: httpx2.AsyncClient, ada: Person) -> None:
    two = [("authorization", f"Bearer {ada.access_token}")] * 2

    assert (await http.get("/api/sessions", headers=two)).status_code == 401


async def test_a_token_is_not_taken_from_the_address_or_a_cookie(http: httpx2.AsyncClient, ada: Person) -> None:
    assert (await http.get("/api/sessions", params={"access_token": ada.access_token})).status_code == 401
    cookies = {"cookie": f"colloquy_refresh={ada.refresh_token}; access_token={ada.access_token}"}
    assert (await http.get("/api/sessions", headers=cookies)).status_code == 401


async def test_each_sees_their_own_things(http: httpx2.AsyncClient, ada: Person, ben: Person) -> None:
    session = (await http.post("/api/sessions", json={}, headers=ada.headers)).raise_for_status().json()["id"]

    assert (await http.get(f"/api/sessions/{session}", headers=ada.headers)).status_code == 200
    assert (await http.get(f"/api/sessions/{session}", headers=ben.headers)).status_code == 404
    assert (await http.get("/api/sessions", headers=ben.headers)).json()["items"] == []


async def test_logging_in_needs_the_password(http: httpx2.AsyncClient, ada: Person) -> None:
    wrong = await http.post("/api/auth/login", json={"email": ada.email, "password": PASSWORD + "!"})
    unknown = await http.post("/api/auth/login", json={"email": address(), "password": PASSWORD})
    short = await http.post("/api/auth/login", json={"email": ada.email, "password": "x"})

    problem(wrong, 401, "wrong_credentials")
    bodies = [answer.json() | {"request_id": ""} for answer in (wrong, unknown, short)]
    assert bodies[0] == bodies[1] == bodies[2]
    assert (await logged_in(http, ada.email.upper())).id == ada.id


async def test_a_password_is_the_same_however_its_letters_are_composed(http: httpx2.AsyncClient) -> None:
    email = address()
    await http.post("/api/auth/register", json={"email": email, "password": "caf\u00e9 au lait"})

    answer = await http.post("/api/auth/login", json={"email": email, "password": "cafe\u0301 au lait"})

    assert answer.status_code == 200


@pytest.mark.parametrize("password", ["short", "\u00e9" * 3 + "x", "x" * 1025, "\u00e9" * 600, "with\0a nul"])
async def test_a_password_that_cannot_be_used_is_refused(http: httpx2.AsyncClient, password: str) -> None:
    answer = await http.post("/api/auth/register", json={"email": address(), "password": password})

    problem(answer, 422, "invalid_request", "/password")
    assert password not in answer.text


async def test_a_lone_surrogate_is_no_password(http: httpx2.AsyncClient) -> None:
    body = b'{"email": "a@b.example", "password": "12345678\\ud800"}'
    answer = await http.post("/api/auth/register", content=body, headers={"content-type": "application/json"})

    problem(answer, 422, "invalid_request", "/password")


@pytest.mark.parametrize(
    "email",
    [
        "",
        "x",
        "@x.org",
        "a@",
        "a b@x.org",
        "a@x.org\r\nBcc: b@x.org",
        "a\0@x.org",
        '"a"@x.org',
        "a@x..org",
        "a@[127.0.0.1]",
        "a\u202e@x.org",
        "a" * 65 + "@x.org",
        "a@" + "x" * 250 + ".org",
    ],
)
async def test_what_is_no_address_is_refused(http: httpx2.AsyncClient, email: str) -> None:
    for path in ("register", "login"):
        answer = await http.post(f"/api/auth/{path}", json={"email": email, "password": PASSWORD})
        problem(answer, 422, "invalid_request", "/email")


async def test_an_address_in_other_letters_is_the_same_address(http: httpx2.AsyncClient) -> None:
    name = address().partition("@")[0]
    await registered(http, f"\u00e9{name}@b\u00fccher.example")

    again = {"email": f"E\u0301{name.upper()}@XN--BCHER-KVA.example", "password": PASSWORD}

    problem(await http.post("/api/auth/register", json=again), 409, "email_taken")
    assert (await http.post("/api/auth/login", json=again)).status_code == 200


async def test_of_two_who_register_one_address_at_once_one_gets_it(http: httpx2.AsyncClient) -> None:
    body = {"email": address(), "password": PASSWORD}

    answers = await asyncio.gather(*(http.post("/api/auth/register", json=body) for _ in range(6)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


async def test_a_refresh_token_is_used_once(http: httpx2.AsyncClient, ada: Person) -> None:
    second = person(await refreshed(http, ada.refresh_token))
    third = person(await refreshed(http, second.refresh_token))

    again = await refreshed(http, ada.refresh_token)

    problem(again, 401, "sign_in_over")
    # Two have had the token: nobody knows who of them is the owner.
    assert (await refreshed(http, third.refresh_token)).status_code == 401
    for token in (ada.access_token, second.access_token, third.access_token):
        assert (await me(http, token)).status_code == 401


async def test_reuse_ends_one_sign_in_and_no_other(http: httpx2.AsyncClient, ada: Person) -> None:
    other = await logged_in(http, ada.email)
    second = person(await refreshed(http, ada.refresh_token))
    await refreshed(http, second.refresh_token)
    await refreshed(http, ada.refresh_token)

    assert (await refreshed(http, other.refresh_token)).status_code == 200


async def test_who_did_not_get_the_answer_may_come_again_at_once(http: httpx2.AsyncClient, ada: Person) -> None:
    first, *others = await asyncio.gather(
        *(http.post(REFRESH, json={"refresh_token": ada.refresh_token}) for _ in range(5))
    )

    tokens = {answer.raise_for_status().json()["refresh_token"] for answer in (first, *others)}

    assert len(tokens) == 1
    assert (await refreshed(http, tokens.pop())).status_code == 200


async def test_who_comes_again_late_has_a_copy(
    http: httpx2.AsyncClient, ada: Person, database: asyncpg.Connection
) -> None:
    second = person(await refreshed(http, ada.refresh_token))
    await database.execute("update refresh_tokens set used_at = used_at - interval '31 seconds'")

    assert (await refreshed(http, ada.refresh_token)).status_code == 401
    assert (await refreshed(http, second.refresh_token)).status_code == 401


@pytest.mark.parametrize("token", ["x", "clr_", "clr_" + "A" * 43, "clr_" + "\u00e9" * 43, "clr_" + "A" * 190])
async def test_what_is_no_refresh_token_is_refused(http: httpx2.AsyncClient, token: str) -> None:
    problem(await refreshed(http, token), 401, "sign_in_over")


async def test_an_access_token_refreshes_nothing(http: httpx2.AsyncClient, ada: Person) -> None:
    assert (await refreshed(http, ada.access_token[:200])).status_code == 401
    assert (await me(http, ada.refresh_token)).status_code == 401


async def test_a_sign_in_that_nobody_uses_ends(
    http: httpx2.AsyncClient, ada: Person, database: asyncpg.Connection
) -> None:
    await database.execute("update sign_ins set expires_at = $1 where user_id = $2", datetime.now(UTC), ada.id)

    assert (await me(http, ada.access_token)).status_code == 401
    assert (await refreshed(http, ada.refresh_token)).status_code == 401


async def test_logging_out_ends_the_sign_in_at_once(http: httpx2.AsyncClient, ada: Person) -> None:
    other = await logged_in(http, ada.email)

    answer = await http.post("/api/auth/logout", headers=ada.headers)

    assert answer.status_code == 204
    assert 'colloquy_refresh=""' in answer.headers["set-cookie"]
    assert (await me(http, ada.access_token)).status_code == 401
    assert (await refreshed(http, ada.refresh_token)).status_code == 401
    assert (await me(http, other.access_token)).status_code == 200


async def test_logging_out_with_the_refresh_token_needs_no_access_token(http: httpx2.AsyncClient, ada: Person) -> None:
    answer = await http.post("/api/auth/logout", json={"refresh_token": ada.refresh_token})

    assert answer.status_code == 204
    assert (await me(http, ada.access_token)).status_code == 401
    assert (await http.post("/api/auth/logout", json={"refresh_token": ada.refresh_token})).status_code == 204


async def test_logging_out_everywhere_ends_all_sign_ins(http: httpx2.AsyncClient, ada: Person, ben: Person) -> None:
    other = await logged_in(http, ada.email)

    await http.post("/api/auth/logout", json={"everywhere": True}, headers=ada.headers)

    assert (await me(http, other.access_token)).status_code == 401
    assert (await me(http, ben.access_token)).status_code == 200


async def test_who_shows_nothing_cannot_log_out(http: httpx2.AsyncClient) -> None:
    problem(await http.post("/api/auth/logout"), 401, "not_authenticated")


async def test_another_password_ends_the_other_sign_ins(http: httpx2.AsyncClient, ada: Person) -> None:
    other = await logged_in(http, ada.email)
    body = {"current_password": PASSWORD, "new_password": "another good one"}

    assert (await http.post("/api/auth/me/password", json=body, headers=ada.headers)).status_code == 204

    assert (await me(http, ada.access_token)).status_code == 200
    assert (await me(http, other.access_token)).status_code == 401
    assert (await refreshed(http, other.refresh_token)).status_code == 401
    assert (await logged_in(http, ada.email, "another good one")).id == ada.id
    old = await http.post("/api/auth/login", json={"email": ada.email, "password": PASSWORD})
    assert old.status_code == 401


async def test_another_password_needs_the_present_one(http: httpx2.AsyncClient, ada: Person) -> None:
    body = {"current_password": "a wrong guess", "new_password": "another good one"}

    answer = await http.post("/api/auth/me/password", json=body, headers=ada.headers)

    problem(answer, 422, "wrong_password", "/current_password")
    assert (await logged_in(http, ada.email)).id == ada.id


async def test_a_short_new_password_is_told_of_where_it_stands(http: httpx2.AsyncClient, ada: Person) -> None:
    body = {"current_password": PASSWORD, "new_password": "short"}

    answer = await http.post("/api/auth/me/password", json=body, headers=ada.headers)

    problem(answer, 422, "invalid_request", "/new_password")


async def test_people_say_what_they_are_called_and_where_they_live(http: httpx2.AsyncClient, ada: Person) -> None:
    body = {"display_name": "Ada Lovelace", "timezone": "Europe/London"}

    answer = await http.patch("/api/auth/me", json=body, headers=ada.headers)

    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in body} == body
    cleared = await http.patch("/api/auth/me", json={"timezone": None}, headers=ada.headers)
    assert (cleared.json()["display_name"], cleared.json()["timezone"]) == ("Ada Lovelace", None)


@pytest.mark.parametrize(
    "body",
    [
        {"timezone": "Europe/Nowhere"},
        {"timezone": "../../etc/passwd"},
        {"timezone": ""},
        {"display_name": None},
        {"display_name": " "},
        {"is_admin": True},
        {"email": "x@y.example"},
    ],
)
async def test_what_people_may_not_say_of_themselves_is_refused(
    http: httpx2.AsyncClient, ada: Person, body: dict[str, object]
) -> None:
    answer = await http.patch("/api/auth/me", json=body, headers=ada.headers)

    problem(answer, 422, "invalid_request", f"/{next(iter(body))}")
    assert (await me(http, ada.access_token)).json() == ada.user


async def test_a_password_that_was_kept_at_another_price_is_kept_at_todays(
    http: httpx2.AsyncClient, ada: Person, database: asyncpg.Connection
) -> None:
    cheaper = Argon2Hasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    await database.execute("update users set password_hash = $1 where id = $2", cheaper, ada.id)

    await logged_in(http, ada.email)

    stored = await database.fetchval("select password_hash from users where id = $1", ada.id)
    assert stored.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert (await logged_in(http, ada.email)).id == ada.id
    assert (await me(http, ada.access_token)).status_code == 200


async def test_nobody_who_has_the_old_password_gets_in_while_it_is_changed(
    http: httpx2.AsyncClient, ada: Person, database: asyncpg.Connection
) -> None:
    passwords = [PASSWORD, "another good one"]
    for current, new in (passwords, passwords[::-1]) * 2:
        old = {"email": ada.email, "password": current}
        changing = http.post(
            "/api/auth/me/password", json={"current_password": current, "new_password": new}, headers=ada.headers
        )
        changed, *_ = await asyncio.gather(changing, *(http.post("/api/auth/login", json=old) for _ in range(4)))
        assert changed.status_code == 204
        alive = await database.fetch("select id from sign_ins where user_id = $1 and revoked_at is null", ada.id)
        assert len(alive) == 1
    http.cookies.clear()


async def test_of_a_sign_in_that_ends_while_it_goes_on_nothing_is_left(http: httpx2.AsyncClient, ada: Person) -> None:
    answers = await asyncio.gather(
        http.post(REFRESH, json={"refresh_token": ada.refresh_token}),
        http.post("/api/auth/logout", headers=ada.headers),
        http.post(REFRESH, json={"refresh_token": ada.refresh_token}),
    )
    http.cookies.clear()

    given = [answer.json() for answer in answers if answer.status_code == 200]
    for tokens in given:
        assert (await me(http, tokens["access_token"])).status_code == 401
        assert (await refreshed(http, tokens["refresh_token"])).status_code == 401
    assert answers[1].status_code in (204, 401)


async def test_whoever_refreshes_without_pause_does_not_fill_the_disk(
    http: httpx2.AsyncClient, ada: Person, database: asyncpg.Connection
) -> None:
    sign_in = await database.fetchval("SELECT id FROM sign_ins WHERE user_id = $1", UUID(ada.id))
    await database.execute(
        """
        INSERT INTO refresh_tokens (hash, sign_in_id, used_at)
        SELECT sha256(n::text::bytea), $1, now() - make_interval(secs => n) FROM generate_series(1, 3000) AS n
        """,
        sign_in,
    )

    assert (await http.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})).status_code == 200

    kept = await database.fetchval("SELECT count(*) FROM refresh_tokens WHERE sign_in_id = $1", sign_in)
    assert kept == 1_002  # what follows, and the latest that are used up
    again = await http.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})
    assert again.status_code == 200  # the one used last is known as ever
