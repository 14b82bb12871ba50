"""Changing what was said: in the history, and in what the model is told of it.

Everything happens under the lock of the session's journal, so no run begins or ends meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import DatabaseError
from db.ids import MessageId, SessionId, UserId
from db.pool import Database
from db.records import MessageRecord, MessageRole
from db.stores.events import NewEvent
from db.stores.rows import record

if TYPE_CHECKING:
    from asyncpg import Record

    from db.pool import PooledConnection


class NoSuchMessage(DatabaseError):
    """The owner has no message with that id, or no session."""


class NoSuchParent(DatabaseError):
    """The session has no message with that id that another could follow."""


class MessageInUse(DatabaseError):
    """A run that is not finished answers the message, or is making it."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that no run has made. Without `parent_id` it follows the newest one of the active branch."""

    id: MessageId
    session_id: SessionId
    parent_id: MessageId | None
    role: MessageRole
    content: str
    token_count: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """A message as it is now (or was), where the active branch ends, and the position of the event that tells of it."""

    message: MessageRecord
    leaf: MessageId | None
    seq: int


Announce = Callable[[MessageId | None, bool], NewEvent]
"""Makes the event that tells of a change, given where the active branch ends and whether that has changed."""


class EditingStore:
    """Adds, changes and deletes messages of an owner's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: NewMessage, owner_id: UserId, announce: Announce) -> Changed:
        """Store a message; if it follows the newest one of the active branch, that goes on with it.

        Raises `NoSuchMessage` for the session, `NoSuchParent`, and `MessageInUse` while a run is not finished.
        """
        async with self._database.transaction() as connection:
            leaf = await _lock(connection, new.session_id, owner_id)
            if await connection.fetchval(
                "SELECT true FROM runs WHERE session_id = $1 AND state <> 'finished' LIMIT 1", new.session_id
            ):
                raise MessageInUse(str(new.session_id))
            row = await connection.fetchrow(
                """
                INSERT INTO messages (id, session_id, parent_id, role, content, parts, token_count, metadata)
                SELECT $2, $1, $3, $4, $5::text,
                       CASE WHEN $4::text = 'assistant'
                            THEN jsonb_build_array(jsonb_build_object('type', 'text', 'text', $5)) ELSE '[]' END, $6, $7
                WHERE $3::uuid IS NULL OR EXISTS (SELECT FROM messages WHERE id = $3 AND session_id = $1)
                RETURNING *
                """,
                new.session_id,
                new.id,
                new.parent_id or leaf,
                new.role,
                new.content,
                new.token_count,
                new.metadata,
            )
            if row is None:
                raise NoSuchParent(str(new.parent_id))
            goes_on = new.parent_id in (None, leaf)
            return await _told(connection, row, new.id if goes_on else leaf, announce, moved=goes_on)

    async def edit(
        self,
        message_id: MessageId,
        owner_id: UserId,
        *,
        content: tuple[str, int] | None,
        metadata: dict[str, Any] | None,
        announce: Announce,
    ) -> Changed:
        """Change a message's words, given with their tokens, or its metadata; None leaves either as it is.

        What the model was told of the old words is forgotten with every summary that covers them; files that were sent
        with a message stay. Raises `NoSuchMessage`, `MessageInUse`.
        """
        async with self._database.transaction() as connection:
            session_id, leaf = await _lock_session_of(connection, message_id, owner_id)
            await _check_use(connection, session_id, message_id)
            if content is not None:
                await _forget(connection, session_id, message_id)
                await _say_again(connection, message_id, *content)
            row = await connection.fetchrow(
                """
                UPDATE messages SET metadata = coalesce($3, metadata), updated_at = now()
                WHERE id = $2 AND session_id = $1 RETURNING *
                """,
                session_id,
                message_id,
                metadata,
            )
            assert row is not None, "nothing can have changed under the lock"
            return await _told(connection, row, leaf, announce)

    async def delete(self, message_id: MessageId, owner_id: UserId, announce: Announce) -> Changed:
        """Delete a message; what followed it follows the message before it.

        A branch that ended with it ends with the message before it. Raises `NoSuchMessage`, `MessageInUse`.
        """
        async with self._database.transaction() as connection:
            session_id, leaf = await _lock_session_of(connection, message_id, owner_id)
            await _check_use(connection, session_id, message_id)
            await _forget(connection, session_id, message_id)
            row = await connection.fetchrow(
                """
                WITH gone AS (
                    DELETE FROM messages WHERE id = $2 AND session_id = $1 RETURNING *
                ), items AS (
                    DELETE FROM context_items WHERE message_id = $2
                ), followers AS (
                    UPDATE messages m SET parent_id = gone.parent_id FROM gone
                    WHERE m.parent_id = gone.id AND m.session_id = $1
                )
                SELECT * FROM gone
                """,
                session_id,
                message_id,
            )
            assert row is not None, "nothing can have changed under the lock"
            moved = leaf == message_id
            return await _told(connection, row, row["parent_id"] if moved else leaf, announce, moved=moved)


async def _lock(connection: "PooledConnection", session_id: SessionId, owner_id: UserId) -> MessageId | None:
    """Lock the session, and return where its active branch ends."""
    # The journal first, here as everywhere, so that no two transactions wait for each other.
    row = await connection.fetchrow(
        """
        SELECT s.active_leaf_id FROM journals j JOIN sessions s ON s.id = j.session_id
        WHERE j.session_id = $1 AND s.owner_id = $2 FOR UPDATE OF j, s
        """,
        session_id,
        owner_id,
    )
    if row is None:
        raise NoSuchMessage(str(session_id))
    return row["active_leaf_id"]


async def _lock_session_of(
    connection: "PooledConnection", message_id: MessageId, owner_id: UserId
) -> tuple[SessionId, MessageId | None]:
    session_id = await connection.fetchval("SELECT session_id FROM messages WHERE id = $1", message_id)
    if session_id is None:
        raise NoSuchMessage(str(message_id))
    leaf = await _lock(connection, session_id, owner_id)
    if not await connection.fetchval("SELECT true FROM messages WHERE id = $1", message_id):
        raise NoSuchMessage(str(message_id))
    return session_id, leaf


async def _check_use(connection: "PooledConnection", session_id: SessionId, message_id: MessageId) -> None:
    in_use = await connection.fetchval(
        """
        SELECT true FROM runs r JOIN messages m ON m.id = $2
        WHERE r.session_id = $1 AND r.state <> 'finished' AND (r.id = m.run_id OR r.user_message_id = m.id) LIMIT 1
        """,
        session_id,
        message_id,
    )
    if in_use:
        raise MessageInUse(str(message_id))


async def _forget(connection: "PooledConnection", session_id: SessionId, message_id: MessageId) -> None:
    """Drop the summaries that cover the message: those at it or after it. One that is being made will not be stored."""
    await connection.execute(
        """
        WITH RECURSIVE after AS (
            SELECT $2::uuid AS id
            UNION ALL
            SELECT child.id FROM after
            CROSS JOIN LATERAL (SELECT id FROM messages WHERE parent_id = after.id AND session_id = $1) child
        ), forgotten AS (
            DELETE FROM context_summaries c USING after WHERE c.message_id = after.id AND c.session_id = $1
        )
        UPDATE sessions SET context_version = context_version + 1 WHERE id = $1
        """,
        session_id,
        message_id,
    )


async def _say_again(connection: "PooledConnection", message_id: MessageId, content: str, token_count: int) -> None:
    """New words: calls of tools stay in the history of a reply, but the model is told the words alone."""
    await connection.execute(
        """
        WITH old AS (
            SELECT id, role, content, token_count FROM messages WHERE id = $1
        ), kept AS (
            UPDATE context_items i
            SET body = i.body || jsonb_build_object('text', $2::text),
                token_count = greatest(0, i.token_count - old.token_count + $3)
            FROM old WHERE i.message_id = $1 AND old.role = 'user' AND i.body ->> 'text' = old.content
            RETURNING i.position
        ), dropped AS (
            DELETE FROM context_items i USING old WHERE i.message_id = $1 AND old.role <> 'user'
        )
        UPDATE messages m SET content = $2, token_count = $3,
            context_tokens = CASE WHEN m.role = 'user' THEN greatest(0, m.context_tokens - m.token_count + $3) END,
            parts = CASE WHEN m.role = 'assistant'
                THEN jsonb_path_query_array(m.parts, '$[*] ? (@.type != "text")')
                     || jsonb_build_object('type', 'text', 'text', $2)
                WHEN m.parts <> '[]'
                THEN jsonb_build_array(jsonb_build_object('type', 'text', 'text', $2))
                     || jsonb_path_query_array(m.parts, '$[*] ? (@.type != "text")')
                ELSE m.parts END
        WHERE m.id = $1
        """,
        message_id,
        content,
        token_count,
    )


async def _told(
    connection: "PooledConnection",
    row: "Record",
    leaf: MessageId | None,
    announce: Announce,
    *,
    moved: bool = False,
) -> Changed:
    """Write the event that tells of the change, and where the active branch ends if that has moved."""
    event = announce(leaf, moved)
    seq = await connection.fetchval(
        """
        WITH head AS (
            UPDATE journals SET last_seq = last_seq + 1 WHERE session_id = $1 RETURNING last_seq
        ), told AS (
            INSERT INTO events (session_id, seq, type, body) SELECT $1, last_seq, $2, $3 FROM head
        ), touched AS (
            UPDATE sessions SET updated_at = now(), active_leaf_id = CASE WHEN $5 THEN $4 ELSE active_leaf_id END
            WHERE id = $1
        )
        SELECT last_seq FROM head
        """,
        row["session_id"],
        event.type,
        event.body,
        leaf,
        moved,
    )
    return Changed(record(MessageRecord, row), leaf, seq)
