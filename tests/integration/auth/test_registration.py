"""Who may register, and how the first account comes about."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest

from api.main import create_app
from db.ids import LOCAL_OWNER
from tests.integration.auth.conftest import PASSWORD, address, bearer, registered
from tests.integration.rest.reading import problem
from tests.service import accounts_settings, local_settings, running_service

Served = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def served(database_url: str) -> Served:
    """`async with served(registration="invite") as http`: a client of a service that nobody has an account of."""

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncGenerator[httpx2.AsyncClient, None]:
        async with (
            running_service(accounts_settings(**settings), database_url) as base_url,
            httpx2.AsyncClient(base_url=base_url, timeout=20) as http,
        ):
            yield http

    return serve


async def setup_code(database_url: str, registration: str, **settings: Any) -> str | None:
    """What the operator reads where the service says that it is ready."""
    app = create_app(accounts_settings(registration=registration, **settings), database_url)
    async with app.router.lifespan_context(app):
        return next((line.rpartition(" ")[2] for line in app.state.banner if "invite code" in line), None)


async def register(http: httpx2.AsyncClient, code: str | None = None, email: str | None = None) -> httpx2.Response:
    body = {"email": email or address(), "password": PASSWORD, "invite_code": code}
    answer = await http.post("/api/auth/register", json=body)
    http.cookies.clear()
    return answer


async def test_of_many_who_register_first_at_once_one_is_the_administrator(served: Served) -> None:
    async with served() as http:
        answers = await asyncio.gather(*(register(http) for _ in range(6)))

    assert [answer.status_code for answer in answers] == [201] * 6
    assert sorted(answer.json()["user"]["is_admin"] for answer in answers) == [False] * 5 + [True]


async def test_by_invitation_the_first_needs_the_setup_code_and_the_others_a_code_each(
    served: Served, database_url: str
) -> None:
    code = await setup_code(database_url, "invite")
    async with served(registration="invite") as http:
        assert (await http.get("/api/config")).json()["registration"] == "invite"
        problem(await register(http), 403, "setup_code_needed")
        problem(await register(http, "A" * 16), 403, "setup_code_needed")
        first = await register(http, f" {code} ".lower())
        assert first.json()["user"]["is_admin"] is True

        # It was good for one.
        problem(await register(http, code), 403, "invitation_needed")
        admin = bearer(first.json()["access_token"])
        taken = first.json()["user"]["email"]
        problem(await register(http, "cli_wrong", taken), 403, "invitation_needed")  # and not: email_taken

        made = (await http.post("/api/auth/invitations", json={}, headers=admin)).json()
        used = await asyncio.gather(*(register(http, made["invite_code"]) for _ in range(4)))
        assert sorted(answer.status_code for answer in used) == [201, 403, 403, 403]
        listed = (await http.get("/api/auth/invitations", headers=admin)).json()["items"][0]
        assert listed["used_by"] == next(one.json()["user"]["id"] for one in used if one.status_code == 201)

        mine = address()
        made = (await http.post("/api/auth/invitations", json={"email": mine}, headers=admin)).json()
        problem(await register(http, made["invite_code"]), 403, "invitation_needed")
        assert (await register(http, made["invite_code"], mine.upper())).status_code == 201


async def test_a_code_whose_time_is_over_or_whose_address_is_taken_lets_nobody_in(
    served: Served, database_url: str
) -> None:
    code = await setup_code(database_url, "invite")
    async with served(registration="invite") as http:
        first = (await register(http, code)).json()
        admin = bearer(first["access_token"])
        made = (await http.post("/api/auth/invitations", json={}, headers=admin)).json()
        problem(await register(http, made["invite_code"], first["user"]["email"]), 409, "email_taken")
        connection = await asyncpg.connect(database_url)
        await connection.execute("update invitations set expires_at = now()")
        await connection.close()

        problem(await register(http, made["invite_code"]), 403, "invitation_needed")


async def test_where_registration_is_closed_only_the_operator_gets_in(served: Served, database_url: str) -> None:
    code = await setup_code(database_url, "closed")
    async with served(registration="closed") as http:
        problem(await register(http), 403, "setup_code_needed")
        assert (await register(http, code)).status_code == 201
        problem(await register(http, code), 403, "registration_closed")


async def test_the_first_account_takes_over_what_was_made_without_accounts_if_the_operator_says_so(
    served: Served, database_url: str
) -> None:
    async with (
        running_service(local_settings(), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        session = (await http.post("/api/sessions", json={"title": "From before"})).json()["id"]
    code = await setup_code(database_url, "open")
    async with served() as http:
        problem(await register(http), 403, "setup_code_needed")
        first = (await register(http, code)).json()

        assert first["user"]["id"] == str(LOCAL_OWNER)
        kept = await http.get(f"/api/sessions/{session}", headers=bearer(first["access_token"]))
        assert kept.json()["title"] == "From before"
        second = await registered(http)
        assert second.user["is_admin"] is False
        assert (await http.get(f"/api/sessions/{session}", headers=second.headers)).status_code == 404


async def test_an_open_service_for_this_machine_asks_for_no_setup_code(database_url: str) -> None:
    assert await setup_code(database_url, "open") is None


async def test_whoever_finds_a_fresh_service_in_the_network_does_not_become_its_administrator(
    served: Served, database_url: str
) -> None:
    code = await setup_code(database_url, "open", trusted_hosts="chat.example.org")
    async with served(trusted_hosts="chat.example.org") as http:
        problem(await register(http), 403, "setup_code_needed")
        assert (await register(http, code)).json()["user"]["is_admin"] is True
        assert (await register(http)).json()["user"]["is_admin"] is False


async def test_a_new_account_finds_a_persona_to_talk_to(served: Served) -> None:
    async with served(first_run_content=True) as http:
        for _ in range(2):
            person = await registered(http)
            personas = (await http.get("/api/personas", headers=person.headers)).json()["items"]
            assert [one["is_default"] for one in personas] == [True]
            me = (await http.get("/api/auth/me", headers=person.headers)).json()
            assert me["default_persona_id"] == personas[0]["id"]


async def test_without_accounts_their_routes_say_so_and_the_owner_is_known(
    database_url: str,
) -> None:
    async with (
        running_service(local_settings(), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        for path in ("register", "login"):
            body = {"email": address(), "password": PASSWORD}
            problem(await http.post(f"/api/auth/{path}", json=body), 409, "accounts_are_off")
        for path in ("refresh", "logout"):
            problem(await http.post(f"/api/auth/{path}"), 409, "accounts_are_off")
        for path in ("users", "invitations", "sign-ins"):
            problem(await http.get(f"/api/auth/{path}"), 409, "accounts_are_off")
        me = (await http.get("/api/auth/me")).json()
        assert (me["id"], me["email"], me["is_admin"]) == (str(LOCAL_OWNER), None, True)
        changed = await http.patch("/api/auth/me", json={"display_name": "Me"})
        assert changed.json()["display_name"] == "Me"
        # What a browser has kept of another service at the same address does not matter.
        assert (await http.get("/api/auth/me", headers=bearer("x"))).status_code == 200
