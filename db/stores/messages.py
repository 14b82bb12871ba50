"""The full history: every message, whole, in a tree whose active branch is what people see."""

from dataclasses import dataclass

from db.ids import MessageId, SessionId, UserId
from db.pool import Database
from db.records import MessageRecord, MessageRole
from db.stores.rows import record_or_none, records


@dataclass(frozen=True, slots=True)
class Turn:
    """What the context needs of a message."""

    id: MessageId
    role: MessageRole
    content: str
    token_count: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A page of messages and the position from which the journal tells what they do not."""

    messages: list[MessageRecord]
    has_more: bool
    seq: int


class MessageStore:
    """Messages of an owner's sessions.

    Branches are walked by LATERAL: each step is one look-up by id. Joined plainly, the planner may hash the whole table
    for each step.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, session_id: SessionId, owner_id: UserId, *, before: MessageId | None, limit: int
    ) -> Snapshot | None:
        """Up to `limit` messages of the active branch, newest first, those before the message `before`.

        `seq` is read in the same statement: the events after it, applied to these messages, give every later
        state. While a run is unfinished that is the position just before its first event. None if the owner
        has no such session.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE start AS (
                    SELECT CASE WHEN $3::uuid IS NULL THEN s.active_leaf_id
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
            )
        if not rows:
            return None
        found = records(MessageRecord, [row for row in rows if row["id"] is not None])
        return Snapshot(found[:limit], len(found) > limit, rows[0]["seq"])

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

    async def newest_turns(
        self, session_id: SessionId, leaf: MessageId, *, token_budget: int, overhead: int
    ) -> list[Turn]:
        """The turns that end with `leaf`, oldest first, just as many as cover `token_budget`.

        Each turn costs its stored count and `overhead` tokens. The walk stops at the first turn over the budget
        (that turn included), so its cost does not depend on the length of the session.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT id, parent_id, role, content, token_count, finish_reason,
                           token_count + $4::bigint AS total, 1 AS depth
                    FROM messages WHERE id = $2 AND session_id = $1
                    UNION ALL
                    SELECT m.id, m.parent_id, m.role, m.content, m.token_count, m.finish_reason,
                           path.total + m.token_count + $4, path.depth + 1
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.total <= $3
                )
                SELECT id, role, content, token_count, finish_reason FROM path ORDER BY depth DESC
                """,
                session_id,
                leaf,
                token_budget,
                overhead,
            )
        return records(Turn, rows)
