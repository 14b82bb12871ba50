"""Searching everything that was said in an owner's sessions."""

from dataclasses import dataclass
from datetime import datetime

from db.ids import MessageId, SessionId, UserId
from db.pool import Database
from db.records import MessageRole
from db.stores.rows import records

_SECONDS = 5
"""For one search: whoever asks for more than can be found in that time is told to ask again, for less."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Where to look: at messages before the message `before`, in one session or by one role if these are given."""

    session_id: SessionId | None
    role: MessageRole | None
    before: MessageId | None
    limit: int


@dataclass(frozen=True, slots=True)
class Found:
    """A message that was found; `content` are its first 50,000 characters."""

    id: MessageId
    session_id: SessionId
    session_title: str | None
    role: MessageRole
    content: str
    created_at: datetime


class SearchStore:
    """Finds messages, newest first.

    Whose a message is stands among its words in the index, so a search reads nothing of other owners.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_words(self, owner_id: UserId, wanted: str, prefixes: str, unwanted: str, where: Filter) -> list[Found]:
        """Messages that have what is `wanted` and all `prefixes`, and nothing that is `unwanted`.

        `wanted` and `unwanted` are as people type them ("phrases", or); `prefixes` is a tsquery.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH sought AS (
                    SELECT ('''=' || $1::uuid || '''')::tsquery && wanted
                        && !! websearch_to_tsquery('simple', $4) AS query
                    FROM (SELECT websearch_to_tsquery('simple', $2) && to_tsquery('simple', $3)) _ (wanted)
                    WHERE numnode(wanted) > 0  -- what has no word in it would be found everywhere
                ), found AS MATERIALIZED (
                    SELECT message_id AS id FROM message_words WHERE words @@ (SELECT query FROM sought)
                ), newest AS (
                    SELECT m.*, s.title AS session_title
                    FROM found
                    CROSS JOIN LATERAL (
                        SELECT id, session_id, role FROM messages WHERE id = found.id LIMIT 1
                    ) m
                    JOIN sessions s ON s.id = m.session_id AND s.owner_id = $1
                    WHERE ($5::uuid IS NULL OR m.session_id = $5) AND ($6::text IS NULL OR m.role = $6)
                      AND ($7::uuid IS NULL OR found.id < $7)
                    ORDER BY found.id DESC LIMIT $8
                )
                SELECT n.*, left(m.content, 50000) AS content, m.created_at
                FROM newest n
                CROSS JOIN LATERAL (SELECT content, created_at FROM messages WHERE id = n.id LIMIT 1) m
                ORDER BY n.id DESC
                """,
                owner_id,
                wanted,
                prefixes,
                unwanted,
                where.session_id,
                where.role,
                where.before,
                where.limit,
                timeout=_SECONDS,
            )
        return records(Found, rows)

    async def by_text(self, owner_id: UserId, text: str, where: Filter, *, steps: int) -> list[Found]:
        """Messages in which `text` stands anywhere, in capitals or not.

        Looks at the first 50,000 characters of `steps` messages, those of the newest sessions first.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH looked_at AS MATERIALIZED (
                    SELECT m.* FROM (
                        SELECT id FROM sessions
                        WHERE owner_id = $1 AND ($3::uuid IS NULL OR id = $3) ORDER BY id DESC
                    ) s
                    CROSS JOIN LATERAL (
                        SELECT id, left(content, 50000) AS content FROM messages
                        WHERE session_id = s.id ORDER BY id DESC
                    ) m
                    LIMIT $7
                ), newest AS (
                    SELECT m.id, m.session_id, m.role, m.created_at, looked_at.content
                    FROM looked_at
                    CROSS JOIN LATERAL (
                        SELECT id, session_id, role, created_at FROM messages WHERE id = looked_at.id LIMIT 1
                    ) m
                    WHERE strpos(lower(looked_at.content), lower($2)) > 0
                      AND ($4::text IS NULL OR m.role = $4) AND ($5::uuid IS NULL OR m.id < $5)
                    ORDER BY m.id DESC LIMIT $6
                )
                SELECT n.*, s.title AS session_title FROM newest n
                JOIN sessions s ON s.id = n.session_id ORDER BY n.id DESC
                """,
                owner_id,
                text,
                where.session_id,
                where.role,
                where.before,
                where.limit,
                steps,
                timeout=_SECONDS,
            )
        return records(Found, rows)
