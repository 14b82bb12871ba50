"""Memories of sessions: what scripts, and later summaries, keep of what was said."""

from collections.abc import Mapping
from typing import Any

from db.ids import MemoryId, SessionId, UserId
from db.pool import Database
from db.records import MemoryRecord
from db.stores.rows import record_or_none, records


class MemoryStore:
    """Memories of an owner's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        memory_id: MemoryId,
        session_id: SessionId,
        owner_id: UserId,
        content: str,
        *,
        first_message: int | None = None,
        last_message: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> MemoryRecord | None:
        """Keep a memory; None if the owner has no such session. Again with the same id changes nothing."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO memories (id, session_id, owner_id, content, first_message, last_message, metadata)
                SELECT $1, s.id, s.owner_id, $4, $5, $6, coalesce($7::jsonb, '{}')
                FROM sessions s WHERE s.id = $2 AND s.owner_id = $3 FOR KEY SHARE
                ON CONFLICT (id) DO UPDATE SET id = excluded.id
                    WHERE memories.session_id = excluded.session_id
                RETURNING *
                """,
                memory_id,
                session_id,
                owner_id,
                content,
                first_message,
                last_message,
                metadata,
            )
        return record_or_none(MemoryRecord, row)

    async def newest(
        self, session_id: SessionId, owner_id: UserId, *, before: MemoryId | None = None, limit: int
    ) -> list[MemoryRecord]:
        """The session's memories, newest first, those made before `before`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM memories
                WHERE session_id = $1 AND owner_id = $2 AND ($3::uuid IS NULL OR id < $3)
                ORDER BY id DESC LIMIT $4
                """,
                session_id,
                owner_id,
                before,
                limit,
            )
        return records(MemoryRecord, rows)

    async def search(self, session_id: SessionId, owner_id: UserId, q: str, *, limit: int) -> list[MemoryRecord]:
        """The session's memories that have any word of `q`, or `q` itself anywhere; the best first, then the newest."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT m.* FROM memories m,
                    LATERAL (SELECT replace(plainto_tsquery('simple', $3)::text, '&', '|')::tsquery) AS _ (words)
                WHERE m.session_id = $1 AND m.owner_id = $2
                  AND (m.search @@ words OR strpos(lower(m.content), lower($3)) > 0)
                ORDER BY ts_rank(m.search, words) DESC, m.id DESC LIMIT $4
                """,
                session_id,
                owner_id,
                q,
                limit,
            )
        return records(MemoryRecord, rows)

    async def count(self, session_id: SessionId, owner_id: UserId) -> int:
        """How many memories the session has."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT count(*) FROM memories WHERE session_id = $1 AND owner_id = $2", session_id, owner_id
            )

    async def clear(self, session_id: SessionId, owner_id: UserId) -> int:
        """Forget all memories of the session; returns how many there were."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH gone AS (DELETE FROM memories WHERE session_id = $1 AND owner_id = $2 RETURNING 1)
                SELECT count(*) FROM gone
                """,
                session_id,
                owner_id,
            )
