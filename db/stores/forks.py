"""Copies of sessions up to one of their messages."""

from collections.abc import Mapping

from db.errors import DatabaseError
from db.ids import FileId, MessageId, SessionId, UserId
from db.pool import Database
from db.records import SessionRecord
from db.stores.rows import record


class NoSuchFork(DatabaseError):
    """The owner has no such session, or that has no such message."""


class ForkStore:
    """Makes sessions of sessions. Nothing that was said passes through this process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fork(
        self,
        source: SessionId,
        owner_id: UserId,
        fork_id: SessionId,
        *,
        message_id: MessageId | None,
        title: str | None,
    ) -> SessionRecord:
        """Make a session with the settings of another one and what was said in it up to a message.

        Without a message that is all of its active branch. Copied messages have ids of their own, in the order of the
        branch, and belong to no run. What modules remember goes along as far as it belongs to that past: variables if
        nothing was said after the message, results of runs that stand in the branch, memories of its messages. Costs a
        few look-ups for each message. Raises `NoSuchFork`.
        """
        async with self._database.transaction() as connection:
            leaf = await connection.fetchrow(
                """
                INSERT INTO sessions
                    (id, owner_id, persona_id, title, connection, model, controls, metadata, tools, title_is_given)
                SELECT $3, s.owner_id, s.persona_id, coalesce($5, s.title), s.connection, s.model, s.controls,
                       s.metadata, s.tools, s.title_is_given OR $5 IS NOT NULL
                FROM sessions s
                WHERE s.id = $1 AND s.owner_id = $2
                  AND ($4::uuid IS NULL OR EXISTS (SELECT FROM messages WHERE id = $4 AND session_id = $1))
                RETURNING (SELECT coalesce($4, active_leaf_id) FROM sessions WHERE id = $1) AS id
                """,
                source,
                owner_id,
                fork_id,
                message_id,
                title,
            )
            if leaf is None:
                raise NoSuchFork(str(source))
            await connection.execute("INSERT INTO journals (session_id) VALUES ($1)", fork_id)
            await connection.execute(
                """
                WITH RECURSIVE path AS (
                    SELECT id, parent_id, 0::bigint AS depth FROM messages WHERE id = $3 AND session_id = $1
                    UNION ALL
                    SELECT m.id, m.parent_id, path.depth + 1 FROM path CROSS JOIN LATERAL (
                        SELECT id, parent_id FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) m
                ), placed AS (
                    SELECT id, row_number() OVER (ORDER BY depth DESC) - 1 AS position FROM path
                ), copies AS MATERIALIZED (
                    -- The time of the new session, the place in it, and what makes the id unlike any other.
                    SELECT id, position, (left($2::uuid::text, 18) || '-8' || lpad(to_hex(position >> 16), 3, '0')
                        || '-' || lpad(to_hex(position & 65535), 4, '0')
                        || left(md5($2::uuid::text || id::text), 8))::uuid AS copy
                    FROM placed
                ), linked AS (
                    SELECT id, copy, lag(copy) OVER (ORDER BY position) AS parent FROM copies
                ), said AS (
                    INSERT INTO messages (id, session_id, parent_id, role, content, parts, token_count, finish_reason,
                                          provider, model, metadata, created_at, updated_at, context_tokens, stopped_by)
                    SELECT c.copy, $2, c.parent, m.role, m.content,
                           CASE WHEN m.parts @> '[{"type": "user_message"}]' THEN (
                               SELECT jsonb_agg(CASE WHEN part ->> 'type' = 'user_message' THEN
                                   part || jsonb_build_object('message_id', (
                                       SELECT copy FROM copies WHERE id::text = part ->> 'message_id'))
                                   ELSE part END ORDER BY ordinal)
                               FROM jsonb_array_elements(m.parts) WITH ORDINALITY AS p (part, ordinal)
                           ) ELSE m.parts END,
                           m.token_count, m.finish_reason, m.provider, m.model, m.metadata, m.created_at, m.updated_at,
                           m.context_tokens, m.stopped_by
                    FROM linked c
                    CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = c.id LIMIT 1) m
                ), items AS (
                    INSERT INTO context_items (session_id, message_id, position, body, token_count)
                    SELECT $2, c.copy, i.position,
                           CASE WHEN i.body ? 'message_id' THEN i.body || jsonb_build_object('message_id', (
                               SELECT copy FROM copies WHERE id::text = i.body ->> 'message_id'
                           )) ELSE i.body END, i.token_count
                    FROM copies c JOIN context_items i ON i.message_id = c.id
                ), summaries AS (
                    INSERT INTO context_summaries (id, session_id, message_id, kind, text, token_count,
                                                   summarized_messages, tokens_before, model, created_at)
                    SELECT gen_random_uuid(), $2, c.copy, s.kind, s.text, s.token_count, s.summarized_messages,
                           s.tokens_before, s.model, s.created_at
                    FROM copies c JOIN context_summaries s ON s.message_id = c.id
                ), variables AS (
                    INSERT INTO module_variables (session_id, module_id, name, value)
                    SELECT $2, v.module_id, v.name, v.value FROM module_variables v
                    WHERE v.session_id = $1
                      AND EXISTS (SELECT FROM sessions s WHERE s.id = $1 AND s.active_leaf_id IS NOT DISTINCT FROM $3)
                ), results AS (
                    INSERT INTO module_results
                        (session_id, module_id, run_id, run_seq, state, text, outputs, created_at)
                    SELECT $2, r.module_id, r.run_id, 0, r.state, r.text, r.outputs, r.created_at
                    FROM module_results r JOIN runs ON runs.id = r.run_id
                    WHERE r.session_id = $1 AND runs.user_message_id IN (SELECT id FROM copies)
                ), remembered AS (
                    INSERT INTO memories (id, session_id, owner_id, content, first_message, last_message, metadata,
                                          created_at)
                    SELECT (left($2::uuid::text, 18) || '-8' || lpad(to_hex(m.place >> 16), 3, '0') || '-'
                        || lpad(to_hex(m.place & 65535), 4, '0') || left(md5($2::uuid::text || m.id::text), 8))::uuid,
                        $2, m.owner_id, m.content, m.first_message, m.last_message, m.metadata, m.created_at
                    FROM (SELECT *, row_number() OVER (ORDER BY id) AS place FROM memories WHERE session_id = $1) m
                    WHERE CASE WHEN m.last_message IS NULL
                        THEN m.created_at <= coalesce((SELECT max(created_at) FROM messages WHERE id = $3), now())
                        ELSE m.last_message < (SELECT count(*) FROM copies) END
                )
                UPDATE sessions SET active_leaf_id = (SELECT copy FROM copies WHERE id = $3) WHERE id = $2
                """,
                source,
                fork_id,
                leaf["id"],
            )
            row = await connection.fetchrow(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id
                FROM sessions s JOIN journals j ON j.session_id = s.id WHERE s.id = $1
                """,
                fork_id,
            )
        assert row is not None
        return record(SessionRecord, row)

    async def files_of(self, source: SessionId, fork_id: SessionId) -> list[FileId]:
        """The files that were there when the last message of the fork was said, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT f.id FROM files f
                WHERE f.session_id = $1 AND f.created_at <= (
                    SELECT m.created_at FROM sessions s JOIN messages m ON m.id = s.active_leaf_id WHERE s.id = $2
                )
                ORDER BY f.id
                """,
                source,
                fork_id,
            )
        return [FileId(row["id"]) for row in rows]

    async def refer_to(self, fork_id: SessionId, copies: Mapping[FileId, FileId]) -> None:
        """Let messages and context of the fork name its own files in place of those of which they are copies."""
        async with self._database.transaction() as connection:
            for file_id, copy_id in copies.items():
                await connection.execute(
                    """
                    UPDATE messages SET parts = replace(parts::text, $2, $3)::jsonb,
                        metadata = replace(metadata::text, $2, $3)::jsonb
                    WHERE session_id = $1 AND (strpos(parts::text, $2) > 0 OR strpos(metadata::text, $2) > 0)
                    """,
                    fork_id,
                    str(file_id),
                    str(copy_id),
                )
                await connection.execute(
                    """
                    UPDATE context_items SET body = replace(body::text, $2, $3)::jsonb
                    WHERE session_id = $1 AND strpos(body::text, $2) > 0
                    """,
                    fork_id,
                    str(file_id),
                    str(copy_id),
                )
