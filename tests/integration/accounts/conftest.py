"""People with sign-ins and keys, straight from the database."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import asyncpg
import httpx2
import pytest

from api.setting_groups import Tokens
from db.ids import SessionId, SignInId, UserId, new_id
from db.pool import Database
from db.stores.api_keys import ApiKeyStore
from db.stores.audit import AuditStore
from db.stores.rights import RightsStore
from db.stores.tickets import TicketStore
from services.accounts.alarm import Alarm
from services.accounts.api_keys import ApiKeys
from services.accounts.caller import ALL_SCOPES, USER_SCOPES, Caller, Credential
from services.accounts.tickets import Tickets
from services.audit import AuditLog
from services.telemetry.meters import Meters
from tests.integration.auth.conftest import Person as Account
from tests.integration.auth.conftest import bearer as bearer_header
from tests.integration.auth.conftest import logged_in, registered
from tests.integration.conftest import SharedModel
from tests.integration.sockets.client import Client, Socket
from tests.postgres import TestServer
from tests.service import accounts_settings, running_service


@dataclass(frozen=True)
class Person:
    """Somebody who has signed in, with a session."""

    id: UserId
    session_id: SessionId
    caller: Caller


@pytest.fixture(scope="session")
async def pool(shared_database_url: str) -> AsyncGenerator[Database, None]:
    """The pool that stores are given."""
    pool = await Database.connect(shared_database_url, size=8)
    yield pool
    await pool.close()


async def make_person(database: asyncpg.Connection, *, is_admin: bool = False) -> Person:
    """Somebody new."""
    user, session, sign_in = UserId(new_id()), SessionId(new_id()), SignInId(new_id())
    await database.execute("insert into users (id, display_name, is_admin) values ($1, 'Somebody', $2)", user, is_admin)
    await database.execute("insert into sessions (id, owner_id) values ($1, $2)", session, user)
    await database.execute("insert into journals (session_id) values ($1)", session)
    await database.execute(
        "insert into sign_ins (id, user_id, expires_at) values ($1, $2, now() + interval '1 day')", sign_in, user
    )
    scopes = ALL_SCOPES if is_admin else USER_SCOPES
    return Person(user, session, Caller(user, scopes, Credential("sign_in", sign_in)))


@pytest.fixture
async def person(database: asyncpg.Connection) -> Person:
    """Somebody."""
    return await make_person(database)


@pytest.fixture
async def other(database: asyncpg.Connection) -> Person:
    """Somebody else."""
    return await make_person(database)


@pytest.fixture
def keys(pool: Database) -> ApiKeys:
    """The service of keys; five for each."""
    audit = AuditLog(AuditStore(pool), Meters().audit, retention_days=1)
    return ApiKeys(ApiKeyStore(pool), Alarm(RightsStore(pool)), audit, per_user=5)


@pytest.fixture
def tickets(pool: Database) -> Tickets:
    """The service of tickets; five for each, good for a minute."""
    return Tickets(TicketStore(pool), seconds=60, per_user=5)


STRANGERS = 20
"""So many sockets may wait at the first replica for somebody to say who they are."""


@dataclass(frozen=True)
class Replicas:
    """Two processes' worth of one service with accounts. The second is impatient, and its tokens last for seconds."""

    model: SharedModel
    first: str
    second: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.first, self.second))


@pytest.fixture(scope="session")
async def replicas_database_url(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """The database of `replicas`."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
async def both_replicas(replicas_database_url: str) -> AsyncGenerator[Replicas, None]:
    """The replicas; somebody has an account already, so that who registers next is no administrator."""
    async with SharedModel() as model, AsyncExitStack() as stack:
        asked = {
            "default_provider": "openai",
            "openai_base_url": model.url,
            "openai_api_key": "sk-test",
            "openai_default_model": "fake-small",
        }
        hasty = accounts_settings(**asked, timeouts={"authenticate": 1})
        # Shorter than an operator may make it, so that nobody waits long for the end of a token.
        brief = Tokens.model_construct(access_seconds=1, refresh_seconds=hasty.tokens.refresh_seconds)
        narrow = accounts_settings(**asked, limits={"strangers_per_address": STRANGERS})
        settings = (narrow, hasty.model_copy(update={"tokens": brief}))
        urls = [await stack.enter_async_context(running_service(one, replicas_database_url)) for one in settings]
        async with httpx2.AsyncClient(base_url=urls[0], timeout=20) as http:
            await registered(http, "admin@example.org")
        yield Replicas(model, *urls)


@pytest.fixture
def replicas(both_replicas: Replicas) -> Replicas:
    """The replicas, whose model server has forgotten the tests before."""
    both_replicas.model.forget()
    return both_replicas


@pytest.fixture
async def behind(replicas_database_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A look into the database of `replicas` from behind."""
    connection = await asyncpg.connect(replicas_database_url)
    yield connection
    await connection.close()


class Visitor(Client):
    """Somebody with an account, at one of the replicas. The sign-in shows who they are, over REST."""

    account: Account

    @property
    def user_id(self) -> str:
        """Who they are."""
        return self.account.id

    def sign_in_with(self, account: Account) -> None:
        """Show that from now on."""
        self.account = account
        self.http.headers["authorization"] = account.headers["authorization"]

    async def again(self, base_url: str, stack: AsyncExitStack) -> "Visitor":
        """The same person with another sign-in, at that replica."""
        return await visitor(base_url, stack, self.account.email)

    def at(self, base_url: str) -> Client:
        """The same person's program, at another replica; only over REST it talks with this one."""
        return Client(base_url, self._stack, self.http)

    async def ticket(self, session_id: str | None = None) -> str:
        """A ticket for the socket of that session, or of many conversations."""
        return (await self.given("/api/auth/ws-ticket", session_id=session_id))["ticket"]

    async def key(self, *scopes: str, **fields: Any) -> str:
        """The text of a new key; its id is in `keys`."""
        made = await self.given("/api/auth/api-keys", **{"name": "a key", "scopes": scopes, **fields})
        self.keys[made["key"]] = made["api_key"]["id"]
        return made["key"]

    async def given(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a POST that goes well."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    @cached_property
    def keys(self) -> dict[str, str]:
        """The ids of the keys that were made, by their texts."""
        return {}

    async def open_with(self, session_id: str, bearer: str | None = None) -> Socket:
        """A session's socket, opened by a token or key in the header; by the sign-in's if none is given."""
        return await self.open(session_id, additional_headers=bearer_header(bearer or self.account.access_token))


async def visitor(base_url: str, stack: AsyncExitStack, email: str | None = None) -> Visitor:
    """Somebody who has just registered, or signed in once more."""
    http = await stack.enter_async_context(httpx2.AsyncClient(base_url=base_url, timeout=20))
    account = await (registered(http) if email is None else logged_in(http, email))
    guest = Visitor(base_url, stack, http)
    guest.sign_in_with(account)
    return guest


@pytest.fixture
async def stack() -> AsyncGenerator[AsyncExitStack, None]:
    """What is entered here is left when the test ends."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def ada(replicas: Replicas, stack: AsyncExitStack) -> Visitor:
    """Somebody at the first replica."""
    return await visitor(replicas.first, stack)


@pytest.fixture
async def ben(replicas: Replicas, stack: AsyncExitStack) -> Visitor:
    """Somebody else there."""
    return await visitor(replicas.first, stack)
