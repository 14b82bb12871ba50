"""Messages that a running run takes before its next call of a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.ids import MessageId
from db.pool import Database
from db.records import ContextItemRecord
from db.stores.leases import Claimed
from db.stores.rows import records

if TYPE_CHECKING:
    from db.pool import PooledConnection


@dataclass(frozen=True, slots=True)
class Steered:
    """A message that was taken, as what the model is told of it."""

    message_id: MessageId
    items: tuple[ContextItemRecord, ...]


class SteeringStore:
    """Hands messages over to running runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(
        self, claimed: Claimed, reply_id: MessageId, *, position: int, overhead: int
    ) -> list[Steered] | None:
        """Take all messages that wait to steer this run, oldest first; None if the lease is void.

        From here on the reply stands behind the last of them, what waited for any of them waits for the reply, and
        they are items of the reply's context from `position` on. A message costs its stored count and `overhead`
        tokens. Doing it again after an unanswered commit changes nothing and answers the same.
        """
        async with self._database.connection() as connection:
            if not await _may_be_steered(connection, claimed):
                return []
        async with self._database.transaction() as connection:
            is_held = await connection.fetchval(
                "SELECT true FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR UPDATE",
                claimed.run.session_id,
                claimed.run.id,
                claimed.lease.fence,
            )
            if not is_held:
                return None
            await _end_runs(connection, claimed, reply_id)
            return await _taken(connection, claimed, reply_id, position, overhead)


async def _may_be_steered(connection: "PooledConnection", claimed: Claimed) -> bool:
    """Whether anything waits; also what was taken by a commit that was not answered."""
    return await connection.fetchval(
        """
        SELECT EXISTS (SELECT FROM runs WHERE session_id = $1 AND state = 'queued')
            OR EXISTS (SELECT FROM runs WHERE id = $2 AND user_message_id <> $3)
        """,
        claimed.run.session_id,
        claimed.run.id,
        claimed.run.user_message_id,
    )


async def _end_runs(connection: "PooledConnection", claimed: Claimed, reply_id: MessageId) -> None:
    """End the runs that are next in the queue, as long as they are there to steer and stand behind this one."""
    await connection.execute(
        """
        WITH RECURSIVE waiting AS (
            SELECT q.id, q.user_message_id,
                   q.handed_to IS NOT NULL AND q.interrupt_by IS NULL AS is_willing,
                   row_number() OVER (ORDER BY q.first_seq) AS place
            FROM runs q WHERE q.session_id = $1 AND q.state = 'queued'
        ), taken AS (
            SELECT r.id, r.user_message_id, 0::bigint AS place FROM runs r WHERE r.id = $2
            UNION ALL
            SELECT w.id, w.user_message_id, w.place
            FROM taken
            JOIN waiting w ON w.place = taken.place + 1 AND w.is_willing
            JOIN messages first ON first.parent_id = taken.user_message_id AND first.session_id = $1
                AND first.waits_for = taken.id AND first.run_id = w.id
        ), last AS (
            SELECT id, user_message_id FROM taken WHERE place > 0 ORDER BY place DESC LIMIT 1
        ), ended AS (
            UPDATE runs r SET state = 'finished', finish_reason = 'steered', finished_at = now(), started_at = now(),
                reply_message_id = $3, last_seq = r.first_seq
            FROM taken WHERE r.id = taken.id AND taken.place > 0
        ), moved AS (
            UPDATE runs r SET user_message_id = last.user_message_id FROM last WHERE r.id = $2
        ), standing AS (
            UPDATE messages m SET waits_for = CASE WHEN m.parent_id = last.user_message_id THEN $2 END
            FROM taken, last
            WHERE m.parent_id = taken.user_message_id AND m.session_id = $1 AND m.waits_for = taken.id
              AND (m.run_id IN (SELECT id FROM taken) OR m.parent_id = last.user_message_id)
        )
        SELECT FROM last
        """,
        claimed.run.session_id,
        claimed.run.id,
        reply_id,
    )


async def _taken(
    connection: "PooledConnection", claimed: Claimed, reply_id: MessageId, position: int, overhead: int
) -> list[Steered]:
    """What stands between the message that the run knows as the one it answers and the one that it answers now."""
    rows = await connection.fetch(
        """
        WITH RECURSIVE path AS (
            SELECT m.id, m.parent_id, m.content, m.token_count, 1 AS depth
            FROM runs r JOIN messages m ON m.id = r.user_message_id
            WHERE r.id = $2 AND m.session_id = $1 AND m.id <> $3
            UNION ALL
            SELECT m.id, m.parent_id, m.content, m.token_count, path.depth + 1
            FROM path
            CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1) m
            WHERE m.id <> $3
        ), told AS (
            SELECT path.id, path.depth, coalesce(i.position, 0) AS place,
                   coalesce(i.body, jsonb_build_object('role', 'user', 'text', path.content))
                       || jsonb_build_object('message_id', path.id) AS body,
                   coalesce(i.token_count, path.token_count + $6::int) AS token_count
            FROM path LEFT JOIN context_items i ON i.message_id = path.id
        ), stored AS (
            INSERT INTO context_items (session_id, message_id, position, body, token_count)
            SELECT $1, $4, $5 + row_number() OVER (ORDER BY depth DESC, place) - 1, body, token_count FROM told
            ON CONFLICT DO NOTHING
        )
        SELECT id, body, token_count FROM told ORDER BY depth DESC, place
        """,
        claimed.run.session_id,
        claimed.run.id,
        claimed.run.user_message_id,
        reply_id,
        position,
        overhead,
    )
    told: dict[MessageId, list[ContextItemRecord]] = {}
    for row, item in zip(rows, records(ContextItemRecord, rows), strict=True):
        told.setdefault(MessageId(row["id"]), []).append(item)
    return [Steered(message_id, tuple(items)) for message_id, items in told.items()]
