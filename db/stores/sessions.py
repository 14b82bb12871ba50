"""Sessions: chat threads, each with the journal that belongs to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.ids import MessageId, PersonaId, SessionId, UserId
from db.pool import Database
from db.records import SessionRecord
from db.stores.events import NewEvent
from db.stores.rows import record_or_none, records


@dataclass(frozen=True, slots=True)
class FirstMessage:
    """What the persona says before anybody has written."""

    id: MessageId
    content: str
    token_count: int


class SessionStore:
    """Sessions of an owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        id: SessionId,
        owner_id: UserId,
        persona_id: PersonaId | None,
        title: str | None,
        connection_name: str | None,
        model: str | None,
        controls: Mapping[str, Any],
        metadata: Mapping[str, Any],
        first_message: FirstMessage | None,
    ) -> None:
        """Store a session with an empty journal and, if given, the persona's first message."""
        async with self._database.transaction() as connection:
            await connection.execute(
                """
                WITH session AS (
                    INSERT INTO sessions
                        (id, owner_id, persona_id, title, connection, model, controls, metadata, active_leaf_id)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                )
                INSERT INTO journals (session_id) VALUES ($1)
                """,
                id,
                owner_id,
                persona_id,
                title,
                connection_name,
                model,
                controls,
                metadata,
                first_message and first_message.id,
            )
            if first_message is not None:
                await connection.execute(
                    """
                    INSERT INTO messages (id, session_id, role, content, token_count, parts)
                    VALUES ($1, $2, 'assistant', $3, $4, $5)
                    """,
                    first_message.id,
                    id,
                    first_message.content,
                    first_message.token_count,
                    [{"type": "text", "text": first_message.content}],
                )

    async def get(self, session_id: SessionId, owner_id: UserId) -> SessionRecord | None:
        """The owner's session with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id
                FROM sessions s JOIN journals j ON j.session_id = s.id
                WHERE s.id = $1 AND s.owner_id = $2
                """,
                session_id,
                owner_id,
            )
        return record_or_none(SessionRecord, row)

    async def list(
        self,
        owner_id: UserId,
        *,
        persona_id: PersonaId | None,
        before: SessionId | None,
        limit: int,
    ) -> list[SessionRecord]:
        """The owner's sessions, newest first, those made before the session `before`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id
                FROM sessions s JOIN journals j ON j.session_id = s.id
                WHERE s.owner_id = $1
                  AND ($2::uuid IS NULL OR s.persona_id = $2)
                  AND ($3::uuid IS NULL OR s.id < $3)
                ORDER BY s.id DESC LIMIT $4
                """,
                owner_id,
                persona_id,
                before,
                limit,
            )
        return records(SessionRecord, rows)

    async def update(
        self,
        session_id: SessionId,
        owner_id: UserId,
        changes: Mapping[str, Any],
        *,
        version: int | None,
        event: NewEvent,
    ) -> SessionRecord | None:
        """Set the named fields and tell the session's readers by `event`, in one transaction.

        None if there is no such session, or if `version` is given and is no longer the newest.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """
                WITH head AS (
                    SELECT j.session_id FROM journals j JOIN sessions s ON s.id = j.session_id
                    WHERE j.session_id = $1 AND s.owner_id = $2 AND ($3::bigint IS NULL OR s.version = $3)
                    FOR UPDATE OF j
                )
                UPDATE sessions s SET
                    title = CASE WHEN $4 ? 'title' THEN $4 ->> 'title' ELSE s.title END,
                    pinned = coalesce(($4 ->> 'pinned')::boolean, s.pinned),
                    persona_id = CASE WHEN $4 ? 'persona_id' THEN ($4 ->> 'persona_id')::uuid ELSE s.persona_id END,
                    connection = CASE WHEN $4 ? 'connection' THEN $4 ->> 'connection' ELSE s.connection END,
                    model = CASE WHEN $4 ? 'model' THEN $4 ->> 'model' ELSE s.model END,
                    controls = coalesce($4 -> 'controls', s.controls),
                    metadata = coalesce($4 -> 'metadata', s.metadata),
                    version = s.version + 1, updated_at = now()
                FROM head WHERE s.id = head.session_id AND ($3::bigint IS NULL OR s.version = $3)
                RETURNING s.id
                """,
                session_id,
                owner_id,
                version,
                changes,
            )
            if row is None:
                return None
            await connection.execute(
                """
                WITH head AS (UPDATE journals SET last_seq = last_seq + 1 WHERE session_id = $1 RETURNING last_seq)
                INSERT INTO events (session_id, seq, type, body) SELECT $1, last_seq, $2, $3 FROM head
                """,
                session_id,
                event.type,
                event.body,
            )
            updated = await connection.fetchrow(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id
                FROM sessions s JOIN journals j ON j.session_id = s.id WHERE s.id = $1
                """,
                session_id,
            )
        return record_or_none(SessionRecord, updated)

    async def delete(self, session_id: SessionId, owner_id: UserId, *, version: int | None) -> bool:
        """Delete the session with everything in it; False if there is none (or not of that version)."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT FROM journals WHERE session_id = $1 FOR UPDATE", session_id)
            deleted = await connection.fetchval(
                """
                DELETE FROM sessions WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
                RETURNING true
                """,
                session_id,
                owner_id,
                version,
            )
            if deleted:
                await connection.execute("DELETE FROM events WHERE session_id = $1", session_id)
        return bool(deleted)
