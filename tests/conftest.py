"""What every test can ask for: a database of its own, a server to break; and what none may do: leave the machine."""

import os
from collections.abc import AsyncGenerator, Generator

import hypothesis
import pytest

from db.binaries import Binaries, find_binaries
from tests.network_guard import NetworkGuard
from tests.postgres import DurablePostgres, TestServer, durable_server, fast_server

# The developer's own keys and databases are none of the tests' business; programs that tests start inherit this.
_PRIVATE = ("OPENAI_", "AZURE_OPENAI_", "OLLAMA_", "DATABASE_URL", "DATA_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
for _name in [name for name in os.environ if name.upper().startswith(_PRIVATE)]:
    del os.environ[_name]

_guard = NetworkGuard()
_guard.install()

# A property may take as long as its test; a deadline per example only measures how busy the machine is.
hypothesis.settings.register_profile("colloquy", deadline=None)
hypothesis.settings.load_profile("colloquy")


@pytest.fixture(autouse=True)
def stays_on_this_machine() -> Generator[None, None, None]:
    """Fail a test that tried to reach another machine, even if the code under test swallowed the refusal."""
    _guard.attempts.clear()
    yield
    assert not _guard.attempts, f"tried to leave this machine: {_guard.attempts}"


@pytest.fixture(scope="session")
def postgres_binaries() -> Binaries:
    """The programs that `make run` would use."""
    return find_binaries()


@pytest.fixture(scope="session")
async def postgres(postgres_binaries: Binaries) -> AsyncGenerator[TestServer, None]:
    """One fast server per test process."""
    async with fast_server(postgres_binaries) as server:
        yield server


@pytest.fixture(scope="session")
async def migrated_template(postgres: TestServer) -> str:
    """The database that the others are copied from."""
    return await postgres.make_template()


@pytest.fixture
async def database_url(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """A migrated database that only this test uses."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres: TestServer) -> AsyncGenerator[str, None]:
    """A database without any table."""
    async with postgres.database(template="template1") as url:
        yield url


@pytest.fixture
async def durable_postgres(postgres_binaries: Binaries) -> AsyncGenerator[DurablePostgres, None]:
    """A server of one's own to stop, start and kill."""
    async with durable_server(postgres_binaries) as server:
        yield server
