"""A client, a model server that does as it is told, and services with other settings."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from db.ids import new_id
from tests.fakes.openai_server import OpenAIFake
from tests.integration.sockets.client import Client, Socket, client_of
from tests.service import local_settings, running_service

Opened = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def client(service: str, model: OpenAIFake) -> AsyncGenerator[Client, None]:
    """A client of the shared service; its sessions are gone when the test ends."""
    async with client_of(service) as client:
        yield client


@pytest.fixture
async def session_id(client: Client) -> str:
    """An empty session."""
    return await client.session()


@pytest.fixture
async def socket(client: Client, session_id: str) -> Socket:
    """A socket on `session_id`."""
    return await client.open(session_id)


@pytest.fixture
def opened(database_url: str, model: OpenAIFake) -> Opened:
    """`async with opened(limits={...}) as client`: a client of a service with those settings and its own database."""

    @asynccontextmanager
    async def open_client(**settings: Any) -> AsyncGenerator[Client, None]:
        chosen = local_settings(
            **{
                "default_provider": "openai",
                "openai_base_url": model.url,
                "openai_api_key": "sk-test",
                "openai_default_model": "fake-small",
                **settings,
            }
        )
        async with running_service(chosen, database_url) as base_url, client_of(base_url) as client:
            yield client

    return open_client


class Stranger:
    """Another user, who has no way in yet, and whose things must not be reached."""

    def __init__(self, session_id: str, persona_id: str, run_id: str) -> None:
        self.session_id = session_id
        self.persona_id = persona_id
        self.run_id = run_id


@pytest.fixture
async def stranger(database: asyncpg.Connection) -> Stranger:
    """Somebody with a session, a persona and a run in the database of the shared service."""
    owner, session, persona, run, message = (new_id() for _ in range(5))
    await database.execute("INSERT INTO users (id, display_name) VALUES ($1, 'Somebody else')", owner)
    await database.execute("INSERT INTO sessions (id, owner_id) VALUES ($1, $2)", session, owner)
    await database.execute("INSERT INTO journals (session_id, last_seq) VALUES ($1, 1)", session)
    await database.execute(
        "INSERT INTO personas (id, owner_id, name, slug, template) VALUES ($1, $2, 'Theirs', 'theirs', 'a secret')",
        persona,
        owner,
    )
    await database.execute(
        """
        INSERT INTO runs (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq,
                          last_seq, finished_at)
        VALUES ($1, $2, $3, 'theirs', $4, 'finished', '{}', 1, 1, now())
        """,
        run,
        session,
        owner,
        message,
    )
    return Stranger(str(session), str(persona), str(run))
