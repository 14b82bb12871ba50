"""Sessions: chat threads, each with the journal that belongs to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import DatabaseError
from db.ids import MessageId, PersonaId, SessionId, UserId
from db.pool import Database
from db.records import SessionRecord
from db.stores.branches import newest_leaf
from db.stores.events import NewEvent
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection


class NoSuchPersona(DatabaseError):
    """The owner has no persona with that id."""


class NotInSession(DatabaseError):
    """The session has no message with that id."""


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
        self, session_id: SessionId, owner_id: UserId, fields: Mapping[str, Any], first_message: FirstMessage | None
    ) -> SessionRecord:
        """Store a session with an empty journal and, if given, the persona's first message.

        `fields` are the record's own, those left out take defaults. Raises `NoSuchPersona`.
        """
        async with self._database.transaction() as connection:
            await _hold_persona(connection, fields, owner_id)
            row = await connection.fetchrow(
                """
                WITH journal AS (
                    INSERT INTO journals (session_id) VALUES ($1)
                )
                INSERT INTO sessions
                    (id, owner_id, persona_id, title, pinned, connection, model, controls, tools, metadata,
                     active_leaf_id, title_is_given)
                SELECT $1, $2, (given ->> 'persona_id')::uuid, given ->> 'title',
                       coalesce((given ->> 'pinned')::boolean, false), given ->> 'connection', given ->> 'model',
                       coalesce(given -> 'controls', '{}'), coalesce(given -> 'tools', '{}'),
                       coalesce(given -> 'metadata', '{}'), $4, given ? 'title'
                FROM (SELECT $3::jsonb) AS _ (given)
                RETURNING *, 0 AS last_seq, NULL::uuid AS active_run_id
                """,
                session_id,
                owner_id,
                fields,
                first_message and first_message.id,
            )
            if first_message is not None:
                await connection.execute(
                    """
                    INSERT INTO messages (id, session_id, role, content, token_count, parts)
                    VALUES ($1, $2, 'assistant', $3, $4, $5)
                    """,
                    first_message.id,
                    session_id,
                    first_message.content,
                    first_message.token_count,
                    [{"type": "text", "text": first_message.content}],
                )
        assert row is not None
        return record(SessionRecord, row)

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
        announce: Callable[[Mapping[str, Any]], NewEvent],
    ) -> tuple[SessionRecord, NewEvent] | None:
        """Set the named fields and tell the session's readers, in one transaction.

        `active_message_id` stands for the newest branch through that message: what is set is where that ends.
        `announce` makes the event of what is set. None if there is no such session, or if `version` is given and is
        no longer the newest. Raises `NoSuchPersona` and `NotInSession`.
        """
        async with self._database.transaction() as connection:
            # The journal first, here as everywhere, so that no two transactions wait for each other.
            await _lock_journal(connection, session_id, owner_id)
            await _hold_persona(connection, changes, owner_id)
            changes = await _with_leaf(connection, session_id, owner_id, changes)
            row = await connection.fetchrow(
                """
                UPDATE sessions SET
                    title = CASE WHEN given ? 'title' THEN given ->> 'title' ELSE title END,
                    title_is_given = title_is_given OR given ? 'title',
                    pinned = coalesce((given ->> 'pinned')::boolean, pinned),
                    persona_id = CASE WHEN given ? 'persona_id' THEN (given ->> 'persona_id')::uuid
                                      ELSE persona_id END,
                    connection = CASE WHEN given ? 'connection' THEN given ->> 'connection' ELSE connection END,
                    model = CASE WHEN given ? 'model' THEN given ->> 'model' ELSE model END,
                    controls = coalesce(given -> 'controls', controls),
                    tools = coalesce(given -> 'tools', tools),
                    metadata = coalesce(given -> 'metadata', metadata),
                    active_leaf_id = coalesce((given ->> 'active_message_id')::uuid, active_leaf_id),
                    version = version + 1, updated_at = now()
                FROM (SELECT $4::jsonb) AS _ (given)
                WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
                RETURNING id
                """,
                session_id,
                owner_id,
                version,
                changes,
            )
            if row is None:
                return None
            event = announce(changes)
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
        assert updated is not None
        return record(SessionRecord, updated), event

    async def entitle(self, session_id: SessionId, owner_id: UserId, title: str, event: NewEvent) -> int | None:
        """Give a title to a session that waits for one, and tell its readers; the event's position.

        None if somebody has had a say in its title by now, or it is gone.
        """
        async with self._database.transaction() as connection:
            await _lock_journal(connection, session_id, owner_id)
            return await connection.fetchval(
                """
                WITH entitled AS (
                    UPDATE sessions SET title = $3, version = version + 1
                    WHERE id = $1 AND owner_id = $2 AND title IS NULL AND NOT title_is_given RETURNING id
                ), head AS (
                    UPDATE journals j SET last_seq = j.last_seq + 1 FROM entitled WHERE j.session_id = entitled.id
                    RETURNING j.last_seq
                ), event AS (
                    INSERT INTO events (session_id, seq, type, body) SELECT $1, last_seq, $4, $5 FROM head
                )
                SELECT last_seq FROM head
                """,
                session_id,
                owner_id,
                title,
                event.type,
                event.body,
            )

    async def delete(self, session_id: SessionId, owner_id: UserId, *, version: int | None) -> bool:
        """Delete the session with everything in it; False if there is none (or not of that version)."""
        async with self._database.transaction() as connection:
            await _lock_journal(connection, session_id, owner_id)
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


async def _lock_journal(connection: "PooledConnection", session_id: SessionId, owner_id: UserId) -> None:
    await connection.execute(
        """
        SELECT FROM journals j JOIN sessions s ON s.id = j.session_id
        WHERE j.session_id = $1 AND s.owner_id = $2 FOR UPDATE OF j
        """,
        session_id,
        owner_id,
    )


async def _with_leaf(
    connection: "PooledConnection", session_id: SessionId, owner_id: UserId, changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The changes with the end of the branch in place of the message that was named."""
    if "active_message_id" not in changes:
        return changes
    owned = await connection.fetchval("SELECT true FROM sessions WHERE id = $1 AND owner_id = $2", session_id, owner_id)
    leaf = await newest_leaf(connection, session_id, changes["active_message_id"])
    if owned and leaf is None:
        raise NotInSession(str(changes["active_message_id"]))
    return {**changes, "active_message_id": leaf}


async def _hold_persona(connection: "PooledConnection", fields: Mapping[str, Any], owner_id: UserId) -> None:
    """Keep the persona that `fields` name from being deleted until the transaction ends."""
    persona_id = fields.get("persona_id")
    if persona_id is None:
        return
    held = await connection.fetchval(
        "SELECT true FROM personas WHERE id = $1 AND owner_id = $2 FOR KEY SHARE", persona_id, owner_id
    )
    if not held:
        raise NoSuchPersona(str(persona_id))
