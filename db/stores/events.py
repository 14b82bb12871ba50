"""The journal's rows: the durable, ordered list of a session's events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from db.ids import RunId, SessionId, UserId
from db.pool import Database
from db.records import EventRecord, JournalHead
from db.stores.rows import record_or_none, records


class NewEvent(NamedTuple):
    """An event that has no position yet."""

    type: str
    body: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring events of one run, written under the fence that its owner was given."""

    session_id: SessionId
    run_id: RunId
    fence: int
    events: Sequence[NewEvent]


@dataclass(frozen=True, slots=True)
class FlushState:
    """What became of a batch whose commit was not answered."""

    fence: int
    flush_id: int
    flushed_to: int


class EventStore:
    """Appends to journals and reads from them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, batches: Sequence[Batch], *, flush_id: int, lease_seconds: float) -> dict[SessionId, int]:
        """Write every batch whose fence still holds, in one statement, and renew those leases.

        Returns the position of the first event for each session that was written; a session that is missing
        has been taken over by another replica. The row of `journals` stays locked until the commit, so events
        become visible in the order of their positions.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH head AS (
                    UPDATE journals AS j
                    SET last_seq = j.last_seq + b.count,
                        lease_until = now() + make_interval(secs => $5),
                        flush_id = $4,
                        flushed_to = j.last_seq + b.count
                    FROM unnest($1::uuid[], $2::bigint[], $3::int[]) AS b (session_id, fence, count)
                    WHERE j.session_id = b.session_id AND j.fence = b.fence
                    RETURNING j.session_id, j.last_seq - b.count AS base
                ), written AS (
                    INSERT INTO events (session_id, seq, run_id, type, body)
                    SELECT e.session_id, head.base + e.ordinal, e.run_id, e.type, e.body
                    FROM unnest($6::uuid[], $7::int[], $8::uuid[], $9::text[], $10::text[])
                        AS e (session_id, ordinal, run_id, type, body)
                    JOIN head USING (session_id)
                )
                SELECT session_id, base + 1 AS first_seq FROM head
                """,
                [b.session_id for b in batches],
                [b.fence for b in batches],
                [len(b.events) for b in batches],
                flush_id,
                lease_seconds,
                [b.session_id for b in batches for _ in b.events],
                [ordinal for b in batches for ordinal in range(1, len(b.events) + 1)],
                [b.run_id for b in batches for _ in b.events],
                [event.type for b in batches for event in b.events],
                [event.body for b in batches for event in b.events],
            )
        return {SessionId(row["session_id"]): row["first_seq"] for row in rows}

    async def flush_states(self, session_ids: Sequence[SessionId]) -> dict[SessionId, FlushState]:
        """The newest fenced write of each session: tells whether an unanswered `append` was committed."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT session_id, fence, flush_id, flushed_to FROM journals WHERE session_id = ANY($1)",
                list(session_ids),
            )
        return {
            SessionId(row["session_id"]): FlushState(row["fence"], row["flush_id"], row["flushed_to"]) for row in rows
        }

    async def after(
        self, session_id: SessionId, position: int, *, limit: int, octets: int | None = None
    ) -> list[EventRecord]:
        """Up to `limit` events after `position`, in order; no more after those that make `octets` full."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT seq, run_id, type, body FROM (
                    SELECT seq, run_id, type, body, sum(octet_length(body)) OVER (ORDER BY seq) AS octets
                    FROM (
                        SELECT seq, run_id, type, body FROM events
                        WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
                    ) page
                ) sized
                WHERE $4::bigint IS NULL OR octets - octet_length(body) < $4 ORDER BY seq
                """,
                session_id,
                position,
                limit,
                octets,
            )
        return records(EventRecord, rows)

    async def of_run(self, session_id: SessionId, run_id: RunId, first_seq: int) -> list[EventRecord]:
        """Every event of a run, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT seq, run_id, type, body FROM events
                WHERE session_id = $1 AND seq >= $2 AND run_id = $3 ORDER BY seq
                """,
                session_id,
                first_seq,
                run_id,
            )
        return records(EventRecord, rows)

    async def head(self, session_id: SessionId, owner_id: UserId) -> JournalHead | None:
        """Where the journal of the owner's session stands; None if there is no such session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT j.last_seq, j.kept_after, r.id AS active_run_id, r.first_seq AS active_first_seq
                FROM sessions s
                JOIN journals j ON j.session_id = s.id
                LEFT JOIN LATERAL (
                    SELECT id, first_seq FROM runs
                    WHERE session_id = s.id AND state <> 'finished' ORDER BY first_seq LIMIT 1
                ) r ON true
                WHERE s.id = $1 AND s.owner_id = $2
                """,
                session_id,
                owner_id,
            )
        return record_or_none(JournalHead, row)

    async def last_seqs(self, session_ids: Sequence[SessionId]) -> dict[SessionId, int]:
        """The newest position of each session that still exists."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT session_id, last_seq FROM journals WHERE session_id = ANY($1)", list(session_ids)
            )
        return {SessionId(row["session_id"]): row["last_seq"] for row in rows}

    async def notify(self, payloads: Sequence[str]) -> None:
        """Wake the other replicas' readers; each payload is under 8000 bytes (PostgreSQL, NOTIFY)."""
        async with self._database.connection() as connection:
            await connection.execute(
                "SELECT pg_notify('colloquy_events', payload) FROM unnest($1::text[]) AS p (payload)", list(payloads)
            )

    async def prune(self, *, older_than_seconds: float, sessions: int) -> int:
        """Drop the events of runs that finished that long ago, in at most `sessions` sessions.

        Returns how many sessions were pruned. Only a whole beginning of a journal is dropped, so that the
        positions that are left have no hole.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                WITH due AS (
                    SELECT j.session_id, old.last_seq
                    FROM journals j
                    JOIN LATERAL (
                        SELECT max(r.last_seq) AS last_seq FROM runs r
                        WHERE r.session_id = j.session_id AND r.state = 'finished'
                          AND r.finished_at < now() - make_interval(secs => $1)
                          AND r.last_seq < coalesce(
                              (SELECT min(u.first_seq) FROM runs u
                               WHERE u.session_id = j.session_id AND u.state <> 'finished'), r.last_seq + 1)
                    ) old ON old.last_seq > j.kept_after
                    LIMIT $2
                    FOR UPDATE OF j SKIP LOCKED
                ), moved AS (
                    UPDATE journals j SET kept_after = due.last_seq FROM due
                    WHERE j.session_id = due.session_id RETURNING j.session_id, j.kept_after
                ), dropped AS (
                    DELETE FROM events e USING moved
                    WHERE e.session_id = moved.session_id AND e.seq <= moved.kept_after
                )
                SELECT session_id FROM moved
                """,
                older_than_seconds,
                sessions,
            )
        return len(rows)

    async def epoch(self, fresh: UUID) -> UUID:
        """The journal's epoch: `fresh` for a new database or one that was restored into another cluster."""
        async with self._database.connection() as connection:
            epoch: UUID = await connection.fetchval(
                """
                INSERT INTO journal_epoch AS e (epoch, cluster)
                SELECT $1, system_identifier FROM pg_control_system()
                ON CONFLICT (singleton) DO UPDATE
                SET epoch = CASE WHEN e.cluster = excluded.cluster THEN e.epoch ELSE excluded.epoch END,
                    cluster = excluded.cluster
                RETURNING epoch
                """,
                fresh,
            )
        return epoch
