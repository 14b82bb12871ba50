"""Every door of a service with accounts: who gets through it, and how often one may knock."""

import asyncio
from collections.abc import AsyncGenerator
from io import BytesIO
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from PIL import Image

from api.middleware.authentication import PUBLIC
from services.accounts.secrets import SecretKeys
from services.accounts.tokens import AccessTokens
from tests.integration.auth.conftest import PASSWORD, Person, address, bearer, logged_in, registered
from tests.integration.rest.reading import problem
from tests.postgres import TestServer
from tests.service import accounts_settings, running_service

WITHOUT_A_CALLER = {("get", "/livez"), ("get", "/readyz")} | {(method.lower(), path) for method, path in PUBLIC}
ANYBODYS = {("get", "/api/config"), ("get", "/api/health")}
"""Answered in short to whoever is not known."""


@pytest.fixture
async def document(http: httpx2.AsyncClient) -> dict[str, Any]:
    """The OpenAPI document, which anybody may read."""
    return (await http.get("/openapi.json")).raise_for_status().json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    paths: dict[str, dict[str, Any]] = document["paths"]
    return [(method, path, told) for path, methods in paths.items() for method, told in methods.items()]


async def test_whoever_is_not_known_gets_nowhere(http: httpx2.AsyncClient, document: dict[str, Any]) -> None:
    let_in: list[tuple[str, str]] = []
    for method, path, _ in operations(document):
        filled = path
        while "{" in filled:
            filled = filled[: filled.index("{")] + str(uuid4()) + filled[filled.index("}") + 1 :]
        answer = await http.request(method, filled, headers=bearer("x") if path == "/api/auth/logout" else {})
        if answer.status_code != 401:
            let_in.append((method, path))

    # Those that need a body say so.
    needing = {("post", "/api/auth/register"), ("post", "/api/auth/login")}
    assert set(let_in) == {("get", "/livez"), ("get", "/readyz")} | ANYBODYS | needing


async def test_the_document_tells_what_each_operation_needs(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for method, path, operation in operations(document):
        is_public = (method, path) in WITHOUT_A_CALLER
        assert ("security" in operation) is not is_public or path == "/metrics", (method, path)
        if not is_public:
            assert {"401", "403"} <= operation["responses"].keys(), (method, path)


async def test_what_nobody_has_is_not_told_to_who_is_not_known(http: httpx2.AsyncClient) -> None:
    for path in ("/api/nowhere", "/api/", "/api/auth/login/", "/api/personas/", "/api//config"):
        assert (await http.get(path)).status_code == 401, path


async def test_anybody_is_told_how_to_sign_in_and_no_more(http: httpx2.AsyncClient, ada: Person) -> None:
    config = (await http.get("/api/config")).json()
    assert config.keys() == {"version", "auth_mode", "registration"}
    assert (config["auth_mode"], config["registration"]) == ("accounts", "open")
    assert (await http.get("/api/health")).json() == {"status": "ok"}
    assert "limits" in (await http.get("/api/config", headers=ada.headers)).json()
    assert "parts" in (await http.get("/api/health", headers=ada.headers)).json()
    for path in ("/api/config", "/api/health"):
        assert (await http.get(path, headers=bearer("x"))).status_code == 401


async def test_pictures_are_their_owners(http: httpx2.AsyncClient, ada: Person, ben: Person) -> None:

    picture = BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    uploads = {"file": ("a.png", picture.getvalue(), "image/png")}
    made = await http.post("/api/personas/upload-image", files=uploads, headers=ada.headers)
    url = made.raise_for_status().json()["url"]

    assert (await http.get(url, headers=ada.headers)).status_code == 200
    assert (await http.get(url, headers=ben.headers)).status_code == 404
    assert (await http.get(url)).status_code == 401


async def test_nothing_of_a_body_is_read_before_it_is_known_who_sends_it(accounts_service: str) -> None:
    url = httpx2.URL(accounts_service)
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    head = ("POST /api/sessions HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 9000")
    writer.write("\r\n".join((*head, "", "[")).encode())
    try:
        # The rest is never sent: the answer does not wait for it.
        status = await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()

    assert b" 401 " in status


@pytest.mark.parametrize("path", ["register", "login", "refresh", "logout"])
async def test_a_huge_or_odd_body_is_refused_at_the_open_doors(http: httpx2.AsyncClient, path: str) -> None:
    url = f"/api/auth/{path}"
    headers = {"content-type": "application/json"}

    assert (await http.post(url, content=b" " * 2_000_000, headers=headers)).status_code == 413
    deep = await http.post(url, content=b"[" * 16_000, headers=headers)
    assert deep.status_code in (400, 422)
    twice = await http.post(url, content=b'{"email":"a@b.c","email":"d@e.f"}', headers=headers)
    assert twice.status_code == 400
    form = await http.post(url, data={"email": "a@b.c", "password": PASSWORD})
    assert form.status_code == 415
    more = await http.post(url, json={"email": "a@b.c", "password": PASSWORD, "is_admin": True})
    assert more.status_code == 422


async def test_a_token_of_a_service_with_another_secret_or_purpose_is_refused(
    http: httpx2.AsyncClient, ada: Person
) -> None:
    secret = accounts_settings().secret_keys
    sign_in = (await http.get("/api/auth/sign-ins", headers=ada.headers)).json()["items"][0]["id"]
    for keys in (SecretKeys(["another" * 9]).derive("access tokens"), SecretKeys(secret).derive("other tokens")):
        token = AccessTokens(keys, seconds=900).issue(ada.id, sign_in)  # pyright: ignore[reportArgumentType]
        assert (await http.get("/api/auth/me", headers=bearer(token))).status_code == 401
    good = AccessTokens(SecretKeys(secret).derive("access tokens"), seconds=900)
    token = good.issue(ada.id, sign_in)  # pyright: ignore[reportArgumentType]
    assert (await http.get("/api/auth/me", headers=bearer(token))).status_code == 200


async def test_a_token_of_one_user_does_not_go_with_anothers_sign_in(
    http: httpx2.AsyncClient, ada: Person, ben: Person
) -> None:
    sign_in = (await http.get("/api/auth/sign-ins", headers=ben.headers)).json()["items"][0]["id"]
    keys = SecretKeys(accounts_settings().secret_keys).derive("access tokens")
    token = AccessTokens(keys, seconds=900).issue(ada.id, sign_in)  # pyright: ignore[reportArgumentType]

    assert (await http.get("/api/auth/me", headers=bearer(token))).status_code == 401


async def test_a_key_may_do_what_it_was_given(http: httpx2.AsyncClient, ada: Person) -> None:
    async def key(*scopes: str) -> dict[str, str]:
        body = {"name": "a program", "scopes": scopes}
        return bearer((await http.post("/api/auth/api-keys", json=body, headers=ada.headers)).json()["key"])

    session = (await http.post("/api/sessions", json={}, headers=ada.headers)).json()["id"]
    words = {"content": "Hello"}
    reading, writing, chatting = await key("read"), await key("read", "write"), await key("read", "chat")

    assert (await http.get(f"/api/sessions/{session}", headers=reading)).status_code == 200
    refused = problem(await http.post("/api/sessions", json={}, headers=reading), 403, "insufficient_scope")
    assert refused["details"] == {"scope": "write"}
    assert (await http.post("/api/sessions", json={}, headers=writing)).status_code == 201
    for path, body in (("messages", words), ("interrupt", {}), ("regenerate", {}), ("approvals/x", {"allow": True})):
        for headers in (reading, writing):
            answer = await http.post(f"/api/sessions/{session}/{path}", json=body, headers=headers)
            assert answer.status_code in (403, 422), path
            assert answer.status_code == 422 or answer.json()["details"] == {"scope": "chat"}
    assert (await http.post(f"/api/sessions/{session}/messages", json=words, headers=chatting)).status_code == 200
    assert (await http.patch("/api/auth/me", json={"display_name": "x"}, headers=chatting)).status_code == 403


# --- guessing -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def strict_service(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """The base URL of a service that lets people try three times, and that stands behind a proxy on this machine."""
    guessing = {"per_account_and_address": 3, "per_account": 5, "per_address": 30, "registrations_per_address": 3}
    settings = accounts_settings(
        guessing=guessing,
        limits={"sign_ins_per_user": 3},
        trusted_proxies="127.0.0.1",
        allowed_origins=("https://a.example",),
    )
    async with postgres.database(migrated_template) as url, running_service(settings, url) as base_url:
        yield base_url


@pytest.fixture
async def strict(strict_service: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `strict_service` with an address that no other test has."""
    headers = {"x-forwarded-for": f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"}
    async with httpx2.AsyncClient(base_url=strict_service, timeout=20, headers=headers) as http:
        yield http


async def login(http: httpx2.AsyncClient, email: str, password: str, address: str) -> httpx2.Response:
    body = {"email": email, "password": password}
    answer = await http.post("/api/auth/login", json=body, headers={"x-forwarded-for": address})
    http.cookies.clear()
    return answer


async def test_guessing_is_bounded_and_the_owner_is_not_kept_out(strict: httpx2.AsyncClient) -> None:
    ada = await registered(strict)
    assert (await login(strict, ada.email, PASSWORD, "192.0.2.1")).status_code == 200

    for number in range(8):
        await login(strict, ada.email, "a wrong guess", f"198.51.100.{number % 4}")

    refused = await login(strict, ada.email, PASSWORD, "198.51.100.9")
    problem(refused, 429, "too_many_attempts")
    assert 0 < int(refused.headers["retry-after"]) <= 900
    assert (await login(strict, ada.email, PASSWORD, "192.0.2.1")).status_code == 200
    # Nobody is told by this whether there is such an account.
    nobody = [await login(strict, "nobody@example.org", "a wrong guess", "198.51.100.8") for _ in range(4)]
    assert [answer.status_code for answer in nobody] == [401, 401, 401, 429]


async def test_an_address_cannot_be_made_up(strict: httpx2.AsyncClient) -> None:
    ada = await registered(strict)
    tried = [
        (await login(strict, ada.email, "a wrong guess", f"203.0.113.{n}, 198.51.100.1")).status_code for n in range(4)
    ]

    assert tried == [401, 401, 401, 429]


async def test_the_present_password_cannot_be_guessed_with_a_stolen_token(strict: httpx2.AsyncClient) -> None:
    ada = await registered(strict)
    body = {"current_password": "a wrong guess", "new_password": "another good one"}
    tried = [(await strict.post("/api/auth/me/password", json=body, headers=ada.headers)).status_code for _ in range(4)]

    assert tried == [422, 422, 422, 429]


async def test_nobody_registers_without_end(strict: httpx2.AsyncClient) -> None:
    bodies = [{"email": address(), "password": PASSWORD} for _ in range(4)]
    tried = [(await strict.post("/api/auth/register", json=body)).status_code for body in bodies]

    assert tried == [201, 201, 201, 429]


async def test_refresh_tokens_of_nobody_are_bounded(strict: httpx2.AsyncClient) -> None:
    tokens = [{"refresh_token": f"clr_{n:043}"} for n in range(31)]
    tried = [(await strict.post("/api/auth/refresh", json=body)).status_code for body in tokens]

    assert tried == [401] * 30 + [429]


async def test_behind_https_the_cookie_is_sent_over_https_only(strict: httpx2.AsyncClient) -> None:
    body = {"email": address(), "password": PASSWORD}

    answer = await strict.post("/api/auth/register", json=body, headers={"x-forwarded-proto": "https"})

    assert "Secure" in answer.headers["set-cookie"].split("; ")


async def test_a_page_that_is_let_in_may_say_who_it_is(strict: httpx2.AsyncClient) -> None:
    asking = {"origin": "https://a.example", "access-control-request-method": "GET"}
    headers = {**asking, "access-control-request-headers": "authorization"}

    answer = await strict.options("/api/sessions", headers=headers)

    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    refused = await strict.get("/api/sessions", headers={"origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"


async def test_strangers_are_told_of_a_large_body_in_few_words(http: httpx2.AsyncClient) -> None:
    many = b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}"
    headers = {"content-type": "application/json"}
    for path in ("login", "register", "refresh", "logout"):
        answer = await http.post(f"/api/auth/{path}", content=many, headers=headers)
        assert problem(answer, 413, "body_too_large")["details"] == {"limit": 16_384}

    few = b"{" + b",".join(b'"%d":1' % number for number in range(1_000)) + b"}"
    told = problem(await http.post("/api/auth/login", content=few, headers=headers), 422, "invalid_request")
    assert len(told["errors"]) == 50


async def test_an_object_of_countless_names_is_refused_before_each_is_looked_at(
    http: httpx2.AsyncClient, ada: Person
) -> None:
    many = b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}"
    headers = {**ada.headers, "content-type": "application/json"}

    problem(await http.post("/api/personas", content=many, headers=headers), 400, "malformed_json")


async def test_one_device_too_many_ends_the_sign_in_of_the_oldest(strict: httpx2.AsyncClient) -> None:
    ada = await registered(strict)
    others = [await logged_in(strict, ada.email) for _ in range(3)]

    alive = [(await strict.get("/api/auth/me", headers=one.headers)).status_code for one in (ada, *others)]

    assert alive == [401, 200, 200, 200]
