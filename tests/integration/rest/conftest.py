"""What the tests of REST start from."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import new_id


@dataclass(frozen=True)
class Stranger:
    """Another user's rows."""

    persona_id: UUID
    session_id: UUID
    message_id: UUID
    run_id: UUID
    module_id: UUID
    module_name: str


@pytest.fixture
async def session_id(http: httpx2.AsyncClient) -> str:
    """A fresh session."""
    return (await http.post("/api/sessions", json={})).raise_for_status().json()["id"]


@pytest.fixture
async def persona(http: httpx2.AsyncClient) -> dict[str, Any]:
    """A fresh persona."""
    body = {"name": f"Ada {uuid4()}", "template": "Be brief.", "first_message": "Good morning."}
    return (await http.post("/api/personas", json=body)).raise_for_status().json()


@pytest.fixture
async def stranger(database: asyncpg.Connection) -> Stranger:
    """Somebody else with a persona, a session, a message, a run and a module."""
    user, it = new_id(), Stranger(new_id(), new_id(), new_id(), new_id(), new_id(), f"theirs_{uuid4().hex[:12]}")
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody else')", user)
    await database.execute(
        "insert into personas (id, owner_id, name, slug) values ($1, $2, 'Theirs', 'theirs')", it.persona_id, user
    )
    await database.execute("insert into sessions (id, owner_id, title) values ($1, $2, 'Theirs')", it.session_id, user)
    await database.execute("insert into journals (session_id) values ($1)", it.session_id)
    await database.execute(
        """
        insert into messages (id, session_id, run_id, role, content, token_count)
        values ($1, $2, $3, 'user', 'secret', 1)
        """,
        it.message_id,
        it.session_id,
        it.run_id,
    )
    await database.execute(
        """
        insert into runs (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq)
        values ($1, $2, $3, 'x', $4, 'finished', '{}', 1)
        """,
        it.run_id,
        it.session_id,
        user,
        it.message_id,
    )
    await database.execute(
        "insert into modules (id, owner_id, name) values ($1, $2, $3)", it.module_id, user, it.module_name
    )
    return it
