"""Leases: which replica may perform a run and write its session's journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.ids import ReplicaId, RunId, SessionId
from db.pool import Database
from db.records import RunRecord
from db.stores.rows import record

if TYPE_CHECKING:
    from db.pool import PooledConnection


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a session's journal: void as soon as another fence has been given."""

    replica_id: ReplicaId
    fence: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this replica may perform now."""

    run: RunRecord
    lease: Lease


class LeaseStore:
    """Takes runs that nobody performs, and keeps those that are performed."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease = lease_seconds

    async def take_over(
        self, replica_id: ReplicaId, *, besides: Sequence[SessionId], limit: int, at_once: bool = False
    ) -> list[Claimed]:
        """Claim runs whose owner let its lease run out. The owner's writes are refused from here on.

        `besides` are the sessions in which this replica is at work: an outage of the database lets every lease
        run out, and is no reason to take over from oneself. `at_once` does not wait for leases to run out: for a
        service that knows that it is the only one.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                WITH expired AS (
                    SELECT session_id FROM journals
                    WHERE run_id IS NOT NULL AND (lease_until < now() OR $5) AND session_id <> ALL ($4::uuid[])
                    LIMIT $2 FOR UPDATE SKIP LOCKED
                ), taken AS (
                    UPDATE journals j SET replica_id = $1, fence = j.fence + 1,
                        lease_until = now() + make_interval(secs => $3)
                    FROM expired WHERE j.session_id = expired.session_id
                    RETURNING j.run_id, j.fence
                )
                SELECT taken.fence, r.* FROM runs r JOIN taken ON taken.run_id = r.id
                """,
                replica_id,
                limit,
                self._lease,
                list(besides),
                at_once,
            )
        return [Claimed(record(RunRecord, row), Lease(replica_id, row["fence"])) for row in rows]

    async def count_waiting(self) -> int:
        """How many runs are queued, for all replicas together."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT count(*) FROM runs WHERE state <> 'finished' AND state = 'queued'")

    async def claim_waiting(self, replica_id: ReplicaId, *, limit: int) -> list[Claimed]:
        """Claim queued runs of sessions in which nothing runs (their last owner went away)."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                """
                WITH idle AS (
                    SELECT j.session_id FROM journals j
                    WHERE j.run_id IS NULL
                      AND j.session_id IN (SELECT session_id FROM runs WHERE state = 'queued')
                    LIMIT $2 FOR UPDATE SKIP LOCKED
                ), started AS (
                    UPDATE runs r SET state = 'running', started_at = now()
                    FROM idle
                    WHERE r.id = (SELECT q.id FROM runs q WHERE q.session_id = idle.session_id AND q.state = 'queued'
                                  ORDER BY q.first_seq LIMIT 1)
                    RETURNING r.*
                ), taken AS (
                    UPDATE journals j SET replica_id = $1, run_id = started.id, fence = j.fence + 1,
                        lease_until = now() + make_interval(secs => $3)
                    FROM started WHERE j.session_id = started.session_id
                    RETURNING j.session_id, j.fence
                )
                SELECT taken.fence, started.* FROM started JOIN taken USING (session_id)
                """,
                replica_id,
                limit,
                self._lease,
            )
        return [Claimed(record(RunRecord, row), Lease(replica_id, row["fence"])) for row in rows]

    async def renew(self, replica_id: ReplicaId, session_ids: Sequence[SessionId]) -> list[RunId]:
        """Keep the leases of those sessions, and name those of their runs that somebody asked to stop.

        Rows that a flush has locked are passed over: the flush renews them, and waiting for it could deadlock.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH mine AS (
                    SELECT session_id FROM journals
                    WHERE session_id = ANY ($3::uuid[]) AND replica_id = $1 AND run_id IS NOT NULL
                    FOR UPDATE SKIP LOCKED
                ), renewed AS (
                    UPDATE journals j SET lease_until = now() + make_interval(secs => $2)
                    FROM mine WHERE j.session_id = mine.session_id
                )
                SELECT r.id FROM runs r JOIN journals j ON j.run_id = r.id
                WHERE j.session_id = ANY ($3::uuid[]) AND j.replica_id = $1
                  AND r.state = 'running' AND r.interrupt_by IS NOT NULL
                """,
                replica_id,
                self._lease,
                list(session_ids),
            )
        return [RunId(row["id"]) for row in rows]

    async def give_back(self, claims: Sequence[Claimed]) -> None:
        """Let the leases of runs that are to be gone on with run out now."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                UPDATE journals j SET lease_until = now()
                FROM unnest($1::uuid[], $2::bigint[]) AS c (session_id, fence)
                WHERE j.session_id = c.session_id AND j.fence = c.fence AND j.run_id IS NOT NULL
                """,
                [claimed.run.session_id for claimed in claims],
                [claimed.lease.fence for claimed in claims],
            )

    async def void(self, claims: Sequence[Claimed]) -> list[RunId]:
        """Those of the claimed runs whose sessions belong to somebody else by now, or are gone."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT c.run_id FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS c (run_id, session_id, fence)
                WHERE NOT EXISTS (SELECT FROM journals j WHERE j.session_id = c.session_id AND j.fence = c.fence)
                """,
                [claimed.run.id for claimed in claims],
                [claimed.run.session_id for claimed in claims],
                [claimed.lease.fence for claimed in claims],
            )
        return [RunId(row["run_id"]) for row in rows]


async def lock_journal(connection: "PooledConnection", session_id: SessionId):
    """The head of a session's journal, which nobody else writes until the transaction ends."""
    return await connection.fetchrow(
        "SELECT last_seq, fence, run_id FROM journals WHERE session_id = $1 FOR UPDATE", session_id
    )
