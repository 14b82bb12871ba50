"""Stores of an owner who has a session with runs in it, and of a stranger who has nothing."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import asyncpg
import pytest

from db.ids import RunId, SessionId, UserId, new_id
from db.pool import Database


@dataclass(frozen=True)
class Owner:
    """A user with a session in which three runs were made, one after the other."""

    id: UserId
    session_id: SessionId
    runs: list[RunId]


@pytest.fixture(scope="session")
async def pool(shared_database_url: str) -> AsyncGenerator[Database, None]:
    """The pool that stores are given."""
    pool = await Database.connect(shared_database_url, size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def owner(database: asyncpg.Connection) -> Owner:
    """Somebody who owns things."""
    return await _make_owner(database)


@pytest.fixture
async def stranger(database: asyncpg.Connection) -> Owner:
    """Somebody else."""
    return await _make_owner(database)


async def hold(database: asyncpg.Connection, owner: Owner, run: int) -> int:
    """Give the lease of the owner's session to that run; its fence."""
    return await database.fetchval(
        "update journals set run_id = $2, fence = fence + 1 where session_id = $1 returning fence",
        owner.session_id,
        owner.runs[run],
    )


async def _make_owner(database: asyncpg.Connection) -> Owner:
    user, session = UserId(new_id()), SessionId(new_id())
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody')", user)
    await database.execute("insert into sessions (id, owner_id) values ($1, $2)", session, user)
    await database.execute("insert into journals (session_id) values ($1)", session)
    runs = [RunId(new_id()) for _ in range(3)]
    for position, run in enumerate(runs):
        await database.execute(
            """
            insert into runs (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq)
            values ($1, $2, $3, 'sent ' || $4::bigint, $5, 'finished', '{}', $4)
            """,
            run,
            session,
            user,
            position * 10 + 1,
            new_id(),
        )
    return Owner(user, session, runs)
