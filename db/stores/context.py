"""Layer 1: what the model is told of a session, read from its newest message backwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.ids import MessageId, SessionId, SummaryId
from db.pool import Database
from db.records import ContextItemRecord, ContextMessage, ContextSummaryRecord, SummaryKind
from db.stores.events import NewEvent
from db.stores.leases import Claimed
from db.stores.rows import records

if TYPE_CHECKING:
    from asyncpg import Record


@dataclass(frozen=True, slots=True)
class Stretch:
    """The newest messages of a branch, oldest first.

    `summary` stands for everything before them. Without one, and if it is not `is_whole`, there are older messages.
    `version` grows whenever what was said is changed afterwards.
    """

    messages: list[ContextMessage]
    summary: ContextSummaryRecord | None
    is_whole: bool
    version: int


@dataclass(frozen=True, slots=True)
class NewSummary:
    """What is to stand for a message and all before it."""

    id: SummaryId
    session_id: SessionId
    message_id: MessageId
    kind: SummaryKind
    text: str
    token_count: int
    summarized_messages: int
    tokens_before: int
    model: str | None
    usage: dict[str, Any] | None


class ContextStore:
    """The context of sessions, whose owner the caller has made sure of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self,
        session_id: SessionId,
        leaf: MessageId,
        *,
        token_budget: int,
        overhead: int,
        through_marks: bool = False,
    ) -> Stretch:
        """The messages that end with `leaf`, just as many as cover `token_budget` or come after a summary.

        `through_marks` goes on where older messages were only left out. A message without items costs its stored count
        and `overhead` tokens. The walk stops at the first message over the budget (that one included), so its cost does
        not depend on the length of the session.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH RECURSIVE path AS (
                    SELECT m.id, m.parent_id, m.role, m.content, m.token_count, m.context_tokens, m.finish_reason,
                           m.stopped_by, coalesce(m.context_tokens, m.token_count + $4)::bigint AS total, 1 AS depth,
                           EXISTS (
                               SELECT FROM context_summaries s
                               WHERE s.message_id = m.id AND (s.kind = 'summary' OR NOT $5)
                           ) AS is_summarized
                    FROM messages m WHERE m.id = $2 AND m.session_id = $1
                    UNION ALL
                    SELECT m.id, m.parent_id, m.role, m.content, m.token_count, m.context_tokens, m.finish_reason,
                           m.stopped_by, path.total + coalesce(m.context_tokens, m.token_count + $4), path.depth + 1,
                           EXISTS (
                               SELECT FROM context_summaries s
                               WHERE s.message_id = m.id AND (s.kind = 'summary' OR NOT $5)
                           )
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                    WHERE path.total <= $3 AND NOT path.is_summarized
                )
                SELECT path.id, path.parent_id, path.role, path.content, path.token_count, path.context_tokens,
                       path.finish_reason, path.stopped_by,
                       CASE WHEN path.context_tokens IS NOT NULL AND NOT path.is_summarized THEN (
                           SELECT jsonb_agg(jsonb_build_array(i.body, i.token_count) ORDER BY i.position)
                           FROM context_items i WHERE i.message_id = path.id
                       ) END AS items,
                       s.id AS summary_id, s.session_id, s.message_id, s.kind, s.text, s.token_count AS summary_tokens,
                       s.summarized_messages, s.tokens_before, s.model, s.usage, s.created_at,
                       (SELECT context_version FROM sessions WHERE id = $1) AS version
                FROM path
                LEFT JOIN LATERAL (
                    SELECT * FROM context_summaries WHERE message_id = path.id AND path.is_summarized LIMIT 1
                ) s ON true
                ORDER BY path.depth DESC
                """,
                session_id,
                leaf,
                token_budget,
                overhead,
                through_marks,
            )
        if not rows:
            return Stretch([], None, is_whole=True, version=0)
        summary = _summary(rows[0]) if rows[0]["summary_id"] else None
        messages = [_message(row) for row in (rows[1:] if summary else rows)]
        is_whole = summary is not None or rows[0]["parent_id"] is None
        return Stretch(messages, summary, is_whole, rows[0]["version"])

    async def items(self, message_id: MessageId) -> list[ContextItemRecord]:
        """What is stored of one message, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT body, token_count FROM context_items WHERE message_id = $1 ORDER BY position", message_id
            )
        return records(ContextItemRecord, rows)

    async def add(
        self,
        claimed: Claimed,
        message_id: MessageId,
        position: int,
        items: Sequence[ContextItemRecord],
        usage: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store items of a running reply from `position` on; False, and nothing stored, if the lease is void.

        `usage` is what the run has cost so far, for whoever may have to go on with it. Doing it again after an
        unanswered commit changes nothing and answers the same.
        """
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH mine AS (
                    SELECT FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR UPDATE
                ), added AS (
                    INSERT INTO context_items (session_id, message_id, position, body, token_count)
                    SELECT $1, $4, $5 + i.ordinal - 1, i.body, i.token_count
                    FROM mine
                    CROSS JOIN unnest($6::jsonb[], $7::int[]) WITH ORDINALITY AS i (body, token_count, ordinal)
                    ON CONFLICT DO NOTHING
                ), spent AS (
                    UPDATE runs SET usage = $8 FROM mine WHERE runs.id = $2 AND $8::jsonb IS NOT NULL
                )
                SELECT EXISTS (SELECT FROM mine)
                """,
                claimed.run.session_id,
                claimed.run.id,
                claimed.lease.fence,
                message_id,
                position,
                [item.body for item in items],
                [item.token_count for item in items],
                usage,
            )

    async def put_summary(self, new: NewSummary, *, version: int, event: NewEvent | None) -> int | None:
        """Store a summary, and the event that tells of it, whose position is returned (0 without one).

        It takes the place of a mark, but not of another summary. None, and nothing stored, if there is one, if the
        message is gone, or if what was said was changed since `version`.
        """
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH mine AS (
                    -- Both rows are locked, so both are compared again if the statement had to wait for either.
                    SELECT FROM journals j JOIN sessions s ON s.id = j.session_id
                    WHERE j.session_id = $1 AND s.context_version = $2 FOR UPDATE OF j, s
                ), put AS (
                    INSERT INTO context_summaries AS c
                        (id, session_id, message_id, kind, text, token_count, summarized_messages, tokens_before, model,
                         usage)
                    SELECT $3, $1, m.id, $5, $6, $7, $8, $9, $10, $11
                    FROM mine CROSS JOIN messages m WHERE m.id = $4 AND m.session_id = $1
                    ON CONFLICT (message_id) DO UPDATE SET id = excluded.id, kind = excluded.kind, text = excluded.text,
                        token_count = excluded.token_count, summarized_messages = excluded.summarized_messages,
                        tokens_before = excluded.tokens_before, model = excluded.model, usage = excluded.usage,
                        created_at = now()
                    WHERE c.kind = 'marker'
                    RETURNING c.id
                ), head AS (
                    UPDATE journals j SET last_seq = j.last_seq + 1 FROM put
                    WHERE j.session_id = $1 AND $12::text IS NOT NULL
                    RETURNING j.last_seq
                ), told AS (
                    INSERT INTO events (session_id, seq, type, body) SELECT $1, last_seq, $12, $13 FROM head
                )
                SELECT coalesce((SELECT last_seq FROM head), 0) FROM put
                """,
                new.session_id,
                version,
                new.id,
                new.message_id,
                new.kind,
                new.text,
                new.token_count,
                new.summarized_messages,
                new.tokens_before,
                new.model,
                new.usage,
                event and event.type,
                event and event.body,
            )


def _message(row: "Record") -> ContextMessage:
    return ContextMessage(
        row["id"],
        row["role"],
        row["content"],
        row["token_count"],
        row["context_tokens"],
        row["finish_reason"],
        row["stopped_by"],
        tuple(ContextItemRecord(body, tokens) for body, tokens in row["items"] or ()),
    )


def _summary(row: "Record") -> ContextSummaryRecord:
    return ContextSummaryRecord(
        row["summary_id"],
        row["session_id"],
        row["message_id"],
        row["kind"],
        row["text"],
        row["summary_tokens"],
        row["summarized_messages"],
        row["tokens_before"],
        row["model"],
        row["usage"],
        row["created_at"],
    )
