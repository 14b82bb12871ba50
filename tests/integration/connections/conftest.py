"""Owners with saved connections, in a database that other tests use too."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from db.ids import UserId, new_id
from db.pool import Database
from db.records import ConnectionRecord
from db.stores.audit import AuditStore
from db.stores.connections import ConnectionStore
from services.accounts.secrets import Key, KeyRing
from services.agent.types import ChatMessage, ModelRequest, TextDelta
from services.audit import AuditLog
from services.connections.addresses import LOOPBACK, AddressRules, Gatekeeper
from services.connections.clients import ClientPool
from services.connections.directory import ConnectionDirectory
from services.connections.profile import Profile, make_provider
from services.connections.service import ConnectionService
from services.connections.vault import KeyVault
from services.providers.base import Provider, ProviderTimeouts
from services.providers.registry import Providers, ProviderSettings
from services.telemetry.meters import Meters

NEW, OLD = Key("new", os.urandom(32)), Key("old", os.urandom(32))


@dataclass
class Replica:
    """One process of the service, as far as connections are concerned."""

    service: ConnectionService
    directory: ConnectionDirectory
    clients: ClientPool
    made: list[ConnectionRecord]
    """For which rows a client was made, one after the other."""


class Replicas:
    """Processes on one database."""

    def __init__(self, pool: Database, stack: AsyncExitStack) -> None:
        self.store = ConnectionStore(pool)
        self._audit = AuditLog(AuditStore(pool), Meters().audit, retention_days=1)
        self._stack = stack

    async def start(self, ring: tuple[Key, ...] = (NEW,), *, allowed: tuple[str, ...] = LOOPBACK, **options: Any):
        """Another one, with that ring and those options of its pool of clients."""
        vault, keeper = KeyVault(KeyRing(ring)), Gatekeeper(AddressRules(allowed))
        environment = Providers(ProviderSettings(probe_ollama=False))
        made: list[ConnectionRecord] = []

        def client(record: ConnectionRecord) -> Provider:
            made.append(record)
            return make_provider(record.name, Profile.of(record), vault.open(record), keeper, ProviderTimeouts())

        clients = ClientPool(client, **options)
        await self._stack.enter_async_context(clients.running())
        self._stack.callback(keeper.close)
        service = ConnectionService(self.store, environment, vault, keeper.rules, self._audit, most=500)
        return Replica(service, ConnectionDirectory(environment, self.store, clients), clients, made)


@pytest.fixture(scope="session")
async def pool(shared_database_url: str) -> AsyncGenerator[Database, None]:
    """The pool that stores are given."""
    pool = await Database.connect(shared_database_url, size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def replicas(pool: Database) -> AsyncIterator[Replicas]:
    """Where processes are started."""
    async with AsyncExitStack() as stack:
        yield Replicas(pool, stack)


@pytest.fixture
async def replica(replicas: Replicas) -> Replica:
    """One process."""
    return await replicas.start()


async def new_owner(database: asyncpg.Connection) -> UserId:
    """Somebody."""
    owner = UserId(new_id())
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody')", owner)
    return owner


@pytest.fixture
async def owner(database: asyncpg.Connection) -> AsyncIterator[UserId]:
    """Somebody, with all that is theirs gone at the end."""
    owner = await new_owner(database)
    yield owner
    await database.execute("delete from users where id = $1", owner)


@pytest.fixture
async def stranger(database: asyncpg.Connection) -> AsyncIterator[UserId]:
    """Somebody else."""
    stranger = await new_owner(database)
    yield stranger
    await database.execute("delete from users where id = $1", stranger)


def hello(model: str = "fake-small") -> ModelRequest:
    """A question."""
    return ModelRequest(model, (ChatMessage("user", "hi"),))


async def answered(provider: Provider) -> str:
    """What the model says."""
    async with provider.stream(hello()) as events:
        return "".join([event.text async for event in events if isinstance(event, TextDelta)])
