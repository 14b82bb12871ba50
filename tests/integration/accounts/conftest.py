"""People with sign-ins and keys, straight from the database."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import asyncpg
import pytest

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
