"""The full history: every message, whole, in a tree whose active branch is what people see."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from db.ids import MessageId, RunId, SessionId, UserId
from db.pool import Database
from db.records import MessageRecord, MessageRole
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from asyncpg import Record


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A page of messages and the position from which the journal tells what they do not."""

    messages: list[MessageRecord]
    has_more: bool
    seq: int


@dataclass(frozen=True, slots=True)
class Siblings:
    """How many messages follow the same message, and where one of them stands among them; 1 is the oldest."""

    count: int
    index: int
    previous: MessageId | None
    next: MessageId | None


@dataclass(frozen=True, slots=True)
class Branch:
    """The messages of an owner's session that end with `leaf`; position 0 is the oldest."""

    session_id: SessionId
    owner_id: UserId
    leaf: MessageId | None
    """None: nothing has been said yet."""


@dataclass(frozen=True, slots=True)
class Line:
    """One message as scripts read it."""

    id: MessageId
    role: MessageRole
    content: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a branch is, and how much of it no memory covers yet."""

    messages: int
    uncovered_messages: int
    uncovered_tokens: int


class MessageStore:
    """Messages of an owner's sessions.

    Branches are walked by LATERAL: each step is one look-up by id. Joined plainly, the planner may hash the whole table
    for each step.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        session_id: SessionId,
        owner_id: UserId,
        *,
        before: MessageId | None,
        limit: int,
        branch: MessageId | None = None,
    ) -> Snapshot | None:
        """Up to `limit` messages of a branch, newest first, those before the message `before`.

        The branch is the active one, or the one that ends with the message `branch`; if there is no such message the
        page is empty. `seq` is read in the same statement: the events after it, applied to these messages, give every
        later state. While a run is unfinished that is the position just before its first event. None if the owner
        has no such session.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE start AS (
                    SELECT CASE WHEN $3::uuid IS NULL THEN coalesce($5::uuid, s.active_leaf_id)
                                ELSE (SELECT parent_id FROM messages WHERE id = $3 AND session_id = $1) END AS id,
                           coalesce((SELECT min(first_seq) - 1 FROM runs WHERE session_id = $1 AND state <> 'finished'),
                                    j.last_seq) AS seq
                    FROM sessions s JOIN journals j ON j.session_id = s.id WHERE s.id = $1 AND s.owner_id = $2
                ), path AS (
                    SELECT m.*, 1 AS depth FROM start JOIN messages m ON m.id = start.id AND m.session_id = $1
                    UNION ALL
                    SELECT m.*, path.depth + 1 FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.depth <= $4
                )
                SELECT start.seq, path.* FROM start LEFT JOIN path ON true ORDER BY path.depth
                """,
                session_id,
                owner_id,
                before,
                limit,
                branch,
            )
        return _snapshot(rows, limit)

    async def page_of_all(
        self, session_id: SessionId, owner_id: UserId, *, before: MessageId | None, limit: int
    ) -> Snapshot | None:
        """As `page`, of the messages of all branches."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH start AS (
                    SELECT coalesce((SELECT min(first_seq) - 1 FROM runs WHERE session_id = $1 AND state <> 'finished'),
                                    j.last_seq) AS seq
                    FROM sessions s JOIN journals j ON j.session_id = s.id WHERE s.id = $1 AND s.owner_id = $2
                )
                SELECT start.seq, m.* FROM start LEFT JOIN LATERAL (
                    SELECT * FROM messages
                    WHERE session_id = $1 AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4::bigint + 1
                ) m ON true
                ORDER BY m.id DESC
                """,
                session_id,
                owner_id,
                before,
                limit,
            )
        return _snapshot(rows, limit)

    async def siblings(self, session_id: SessionId, message_ids: Sequence[MessageId]) -> dict[MessageId, Siblings]:
        """Where each of the messages stands among those that follow the same one."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT m.id, s.* FROM messages m CROSS JOIN LATERAL (
                    SELECT count(*) AS count, count(*) FILTER (WHERE id <= m.id) AS index,
                           (array_agg(id ORDER BY id DESC) FILTER (WHERE id < m.id))[1] AS previous,
                           (array_agg(id ORDER BY id) FILTER (WHERE id > m.id))[1] AS next
                    FROM (
                        SELECT id FROM messages WHERE parent_id = m.parent_id AND session_id = $1
                        UNION ALL
                        SELECT id FROM messages WHERE m.parent_id IS NULL AND parent_id IS NULL AND session_id = $1
                    ) beside
                ) s
                WHERE m.session_id = $1 AND m.id = ANY ($2::uuid[])
                """,
                session_id,
                list(message_ids),
            )
        return {MessageId(row["id"]): record(Siblings, row) for row in rows}

    async def turns_to(self, session_id: SessionId, owner_id: UserId, message_id: MessageId) -> list[MessageRecord]:
        """The user's message and those before it that were sent together with it, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT m.*, 1 AS depth FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2 AND m.role = 'user'
                    UNION ALL
                    SELECT m.*, path.depth + 1 FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE m.role = 'user' AND m.run_id = path.run_id
                )
                SELECT * FROM path ORDER BY depth DESC
                """,
                session_id,
                owner_id,
                message_id,
            )
        return records(MessageRecord, rows)

    async def get(self, message_id: MessageId, owner_id: UserId) -> MessageRecord | None:
        """The owner's message with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT m.* FROM messages m JOIN sessions s ON s.id = m.session_id
                WHERE m.id = $1 AND s.owner_id = $2
                """,
                message_id,
                owner_id,
            )
        return record_or_none(MessageRecord, row)

    async def reply_of(self, run_id: RunId, question: MessageId) -> MessageId | None:
        """The reply that the run gave to its last user message, once it is stored."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT id FROM messages WHERE parent_id = $1 AND run_id = $2 AND role = 'assistant'", question, run_id
            )

    async def newest_lines(self, branch: Branch, *, skip: int, limit: int, max_bytes: int) -> list[Line]:
        """The newest `limit` messages before the newest `skip`, oldest first.

        Of these the newest that have at most `max_bytes` together; one that has more by itself comes alone, cut to so
        many characters.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT m.id, m.parent_id, 1::bigint AS depth
                    FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2
                    UNION ALL
                    SELECT m.id, m.parent_id, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.depth < $4::bigint + $5
                ), sized AS (
                    SELECT m.*, path.depth, sum(octet_length(m.content)) OVER (ORDER BY path.depth) AS bytes
                    FROM path CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = path.id LIMIT 1) m
                    WHERE path.depth > $4 AND path.depth <= $4 + $5
                )
                SELECT id, role, left(content, $6) AS content, created_at FROM sized
                WHERE bytes <= $6::int OR depth = $4 + 1 ORDER BY depth DESC
                """,
                branch.session_id,
                branch.owner_id,
                branch.leaf,
                skip,
                limit,
                max_bytes,
            )
        return records(Line, rows)

    async def lines(
        self, branch: Branch, *, first: int, limit: int, max_bytes: int, uncovered_only: bool = False
    ) -> list[Line]:
        """`limit` messages from the one at `first` on, oldest first; `uncovered_only` leaves out what memories cover.

        Of these the oldest that have at most `max_bytes` together; one that has more by itself comes alone, cut to so
        many characters. Walks the whole branch.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT m.id, m.parent_id, 0::bigint AS depth
                    FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2
                    UNION ALL
                    SELECT m.id, m.parent_id, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                ), covered AS (
                    SELECT coalesce(range_agg(int8range(first_message, last_message, '[]')), '{}') AS positions
                    FROM memories WHERE $7::boolean AND session_id = $1 AND first_message <= last_message
                ), placed AS (
                    SELECT id, max(depth) OVER () - depth AS position FROM path
                ), chosen AS (
                    SELECT id, position FROM placed CROSS JOIN covered WHERE NOT position <@ covered.positions
                    ORDER BY position OFFSET $4 LIMIT $5
                ), sized AS (
                    SELECT m.*, chosen.position,
                           sum(octet_length(m.content)) OVER (ORDER BY chosen.position) AS bytes,
                           row_number() OVER (ORDER BY chosen.position) AS place
                    FROM chosen CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = chosen.id LIMIT 1) m
                )
                SELECT id, role, left(content, $6) AS content, created_at FROM sized
                WHERE bytes <= $6::int OR place = 1 ORDER BY position
                """,
                branch.session_id,
                branch.owner_id,
                branch.leaf,
                first,
                limit,
                max_bytes,
                uncovered_only,
            )
        return records(Line, rows)

    async def extent(self, branch: Branch) -> Extent:
        """How long the branch is. Walks all of it."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH RECURSIVE path AS (
                    SELECT m.parent_id, m.token_count, 0::bigint AS depth
                    FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2
                    UNION ALL
                    SELECT m.parent_id, m.token_count, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                ), covered AS (
                    SELECT coalesce(range_agg(int8range(first_message, last_message, '[]')), '{}') AS positions
                    FROM memories WHERE session_id = $1 AND first_message <= last_message
                ), placed AS (
                    SELECT token_count, max(depth) OVER () - depth AS position FROM path
                ), marked AS (
                    SELECT token_count, NOT position <@ covered.positions AS uncovered FROM placed CROSS JOIN covered
                )
                SELECT count(*) AS messages, count(*) FILTER (WHERE uncovered) AS uncovered_messages,
                       coalesce(sum(token_count) FILTER (WHERE uncovered), 0) AS uncovered_tokens
                FROM marked
                """,
                branch.session_id,
                branch.owner_id,
                branch.leaf,
            )
        assert row is not None
        return record(Extent, row)

    async def count_among(
        self, session_id: SessionId, owner_id: UserId, message_ids: Collection[UUID]
    ) -> tuple[int, int]:
        """How many of those messages the owner's session has, and their tokens together."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT count(*) AS messages, coalesce(sum(m.token_count), 0) AS tokens
                FROM messages m JOIN sessions s ON s.id = m.session_id
                WHERE m.id = ANY($3::uuid[]) AND m.session_id = $1 AND s.owner_id = $2
                """,
                session_id,
                owner_id,
                list(message_ids),
            )
        assert row is not None
        return row["messages"], row["tokens"]

    async def newest_reply(self, branch: Branch, *, steps: int) -> str | None:
        """The content of the newest reply among the newest `steps` messages."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH RECURSIVE path AS (
                    SELECT m.id, m.parent_id, m.role, 1 AS depth
                    FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2
                    UNION ALL
                    SELECT m.id, m.parent_id, m.role, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.role <> 'assistant' AND path.depth < $4
                )
                SELECT content FROM messages WHERE id = (SELECT id FROM path WHERE role = 'assistant')
                """,
                branch.session_id,
                branch.owner_id,
                branch.leaf,
                steps,
            )

    async def search(self, branch: Branch, q: str, *, steps: int, limit: int, max_bytes: int) -> list[Line]:
        """Messages that have any word of `q`, or `q` itself anywhere; the best first, then the newest.

        Looks at the first 20,000 characters of each of the newest `steps` messages. Of what is found the best that
        have at most `max_bytes` together; one that has more by itself comes alone, cut to so many characters.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT m.id, m.parent_id, 1 AS depth
                    FROM messages m JOIN sessions s ON s.id = m.session_id
                    WHERE m.id = $3 AND m.session_id = $1 AND s.owner_id = $2
                    UNION ALL
                    SELECT m.id, m.parent_id, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.depth < $5
                ), sought AS (
                    SELECT replace(plainto_tsquery('simple', $4)::text, '&', '|')::tsquery AS words,
                           tsvector_to_array(to_tsvector('simple', $4)) || lower($4) AS pieces
                ), looked_at AS MATERIALIZED (
                    SELECT m.id, path.depth, lower(left(m.content, 20000)) AS beginning
                    FROM path CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = path.id LIMIT 1) m
                ), likely AS MATERIALIZED (
                    -- Taking a text apart costs a hundred times what looking for a few letters costs.
                    SELECT id, depth, beginning, to_tsvector('simple', beginning) AS vector
                    FROM looked_at CROSS JOIN sought
                    WHERE EXISTS (SELECT FROM unnest(pieces) AS piece WHERE strpos(beginning, piece) > 0)
                ), found AS (
                    SELECT id, row_number() OVER (ORDER BY ts_rank(vector, words) DESC, depth) AS place
                    FROM likely CROSS JOIN sought
                    WHERE vector @@ words OR strpos(beginning, lower($4)) > 0
                    ORDER BY place LIMIT $6
                ), sized AS (
                    SELECT m.*, found.place, sum(octet_length(m.content)) OVER (ORDER BY found.place) AS bytes
                    FROM found CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = found.id LIMIT 1) m
                )
                SELECT id, role, left(content, $7) AS content, created_at FROM sized
                WHERE bytes <= $7::int OR place = 1 ORDER BY place
                """,
                branch.session_id,
                branch.owner_id,
                branch.leaf,
                q,
                steps,
                limit,
                max_bytes,
            )
        return records(Line, rows)


def _snapshot(rows: "Sequence[Record]", limit: int) -> Snapshot | None:
    """What was read of a session, if there is one: each row has the position, and a message if there is any."""
    if not rows:
        return None
    found = records(MessageRecord, [row for row in rows if row["id"] is not None])
    return Snapshot(found[:limit], len(found) > limit, rows[0]["seq"])
