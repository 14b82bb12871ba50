"""One running service for all tests here: each takes sessions of its own, so none sees another's."""

from collections.abc import AsyncGenerator

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.postgres import TestServer
from tests.service import local_settings, running_service


class SharedModel(OpenAIFake):
    """A fake that serves one test after the other."""

    def forget(self) -> None:
        """Begin anew: no script is left, and no request was seen."""
        self._scripts.clear()
        self.requests.clear()
        self.lookups.clear()


@pytest.fixture(scope="session")
async def shared_database_url(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """The database of `service`."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
async def shared_model() -> AsyncGenerator[SharedModel, None]:
    """The model server of `service`; tests take it as `model`."""
    async with SharedModel() as fake:
        yield fake


@pytest.fixture(scope="session")
async def service(shared_database_url: str, shared_model: SharedModel) -> AsyncGenerator[str, None]:
    """The base URL of a running service whose default model server is `model`; `demo` is there too."""
    settings = local_settings(
        default_provider="openai",
        openai_base_url=shared_model.url,
        openai_api_key="sk-test",
        openai_default_model="fake-small",
        limits={"connection_tests_per_minute": 1_000},
    )
    async with running_service(settings, shared_database_url) as base_url:
        yield base_url


@pytest.fixture
def model(shared_model: SharedModel) -> OpenAIFake:
    """The model server of `service`, with nothing left of the tests before."""
    shared_model.forget()
    return shared_model


@pytest.fixture
async def http(service: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `service`."""
    async with httpx2.AsyncClient(base_url=service, timeout=20) as client:
        yield client


@pytest.fixture
async def database(shared_database_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A look into the database of `service` from behind."""
    connection = await asyncpg.connect(shared_database_url)
    yield connection
    await connection.close()
