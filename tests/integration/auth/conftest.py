"""One service with accounts for all tests here: each registers people of its own."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from tests.postgres import TestServer
from tests.service import accounts_settings, running_service

PASSWORD = "correct horse battery"


@dataclass
class Person:
    """Somebody with an account, signed in."""

    email: str
    id: str
    access_token: str
    refresh_token: str
    user: dict[str, Any] = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What shows who they are."""
        return bearer(self.access_token)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def address() -> str:
    """An e-mail address that nobody has."""
    return f"{uuid4().hex}@example.org"


def person(answer: httpx2.Response) -> Person:
    """Who was signed in by that answer."""
    body = answer.raise_for_status().json()
    return Person(body["user"]["email"], body["user"]["id"], body["access_token"], body["refresh_token"], body["user"])


async def registered(http: httpx2.AsyncClient, email: str | None = None) -> Person:
    """Somebody who has just registered; the client keeps no cookie of theirs."""
    answer = await http.post("/api/auth/register", json={"email": email or address(), "password": PASSWORD})
    http.cookies.clear()
    return person(answer)


async def logged_in(http: httpx2.AsyncClient, email: str, password: str = PASSWORD) -> Person:
    """The same from another device."""
    answer = await http.post("/api/auth/login", json={"email": email, "password": password})
    http.cookies.clear()
    return person(answer)


@pytest.fixture(scope="session")
async def accounts_database_url(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """The database of `accounts_service`."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
async def accounts_service(accounts_database_url: str) -> AsyncGenerator[str, None]:
    """The base URL of a service with accounts and open registration, in which somebody has an account already."""
    async with running_service(accounts_settings(), accounts_database_url) as base_url:
        async with httpx2.AsyncClient(base_url=base_url, timeout=20) as http:
            await registered(http, "admin@example.org")
        yield base_url


@pytest.fixture
async def http(accounts_service: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `accounts_service` that is not signed in."""
    async with httpx2.AsyncClient(base_url=accounts_service, timeout=20) as client:
        yield client


@pytest.fixture
async def administrator(http: httpx2.AsyncClient) -> Person:
    """The one who registered first."""
    return await logged_in(http, "admin@example.org")


@pytest.fixture
async def ada(http: httpx2.AsyncClient) -> Person:
    """Somebody."""
    return await registered(http)


@pytest.fixture
async def ben(http: httpx2.AsyncClient) -> Person:
    """Somebody else."""
    return await registered(http)


@pytest.fixture
async def database(accounts_database_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A look into the database of `accounts_service` from behind."""
    connection = await asyncpg.connect(accounts_database_url)
    yield connection
    await connection.close()
