"""The work after a reply: done once, in order within a session, by one replica at a time.

A row is made by the statement that ends its run (`RunStore.finish`). Who writes events locks the journal's row
before the work's own, as everywhere; all else touches only the work's row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from db.ids import ReplicaId, RunId, SessionId, UserId
from db.pool import Database
from db.records import RunRecord
from db.stores.events import NewEvent
from db.stores.rows import record

if TYPE_CHECKING:
    from asyncpg import Record


Then = Literal["stages", "jobs", "done"]
"""What is left of the work: stages of which there is more to tell, or only jobs, or nothing."""


@dataclass(frozen=True, slots=True)
class PostClaim:
    """Work that this replica may do now: void as soon as another fence has been given.

    `shown_to` is the position of the newest event that it has shown, None before the first. `jobs` are what the
    service does for itself; with `is_told` nothing else is left.
    """

    run: RunRecord
    fence: int
    shown_to: int | None
    interrupt_by: str | None
    jobs: tuple[str, ...] = ()
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class InterruptNoted:
    """Somebody's word that the work is to stop: whoever does it was told, unless it is `claimed` to be ended here."""

    claimed: PostClaim | None


class PostResponseStore:
    """The life of the work after replies in the database."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease = lease_seconds

    async def claim_next(self, session_id: SessionId, replica_id: ReplicaId) -> PostClaim | None:
        """Claim the session's oldest unfinished work; None if there is none, or another replica is at it.

        What the replica has claimed already is claimed again: the answer to that may have been lost.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH next AS (
                    SELECT run_id FROM post_responses
                    WHERE session_id = $1 AND state <> 'done' ORDER BY position LIMIT 1
                ), taken AS (
                    UPDATE post_responses p SET state = 'working', replica_id = $2, fence = p.fence + 1,
                        lease_until = now() + make_interval(secs => $3)
                    FROM next
                    WHERE p.run_id = next.run_id AND (p.state = 'waiting' OR p.state = 'working' AND p.replica_id = $2)
                    RETURNING p.run_id, p.fence, p.last_seq, p.interrupt_by, p.jobs, p.is_told
                )
                SELECT r.*, t.fence, t.last_seq AS shown_to, t.interrupt_by AS told_by, t.jobs, t.is_told
                FROM taken t JOIN runs r ON r.id = t.run_id
                """,
                session_id,
                replica_id,
                self._lease,
            )
        return None if row is None else _claim(row)

    async def take_over(
        self, replica_id: ReplicaId, *, besides: Sequence[SessionId], limit: int, at_once: bool = False
    ) -> list[PostClaim]:
        """Claim the oldest unfinished work of sessions in which nobody is at it.

        `besides` are the sessions in which this replica is at work. `at_once` does not wait for leases to run out:
        for a service that knows that it is the only one.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH oldest AS (
                    SELECT DISTINCT ON (session_id) run_id FROM post_responses
                    WHERE state <> 'done' AND session_id <> ALL ($4::uuid[])
                    ORDER BY session_id, position
                ), due AS (
                    SELECT p.run_id FROM post_responses p JOIN oldest USING (run_id)
                    WHERE p.state = 'waiting' OR p.state = 'working' AND (p.lease_until < now() OR $5)
                    LIMIT $2 FOR UPDATE OF p SKIP LOCKED
                ), taken AS (
                    UPDATE post_responses p SET state = 'working', replica_id = $1, fence = p.fence + 1,
                        lease_until = now() + make_interval(secs => $3)
                    FROM due WHERE p.run_id = due.run_id
                    RETURNING p.run_id, p.fence, p.last_seq, p.interrupt_by, p.jobs, p.is_told
                )
                SELECT r.*, t.fence, t.last_seq AS shown_to, t.interrupt_by AS told_by, t.jobs, t.is_told
                FROM taken t JOIN runs r ON r.id = t.run_id
                """,
                replica_id,
                limit,
                self._lease,
                list(besides),
                at_once,
            )
        return [_claim(row) for row in rows]

    async def write(
        self, claimed: PostClaim, events: Sequence[NewEvent], then: Then, usage: Mapping[str, Any] | None = None
    ) -> int | None:
        """Write events of the work and what is left of it, and add to its usage; the position of the first event.

        None if the claim is void. Doing it again after an unanswered commit changes nothing and answers the same; with
        no events it may answer None though it was done.
        """
        async with self._database.connection() as connection:
            first_seq: int | None = await connection.fetchval(
                """
                WITH mine AS (
                    -- Both rows are locked, so both are compared again if the statement had to wait for either.
                    SELECT p.run_id FROM journals j JOIN post_responses p ON p.session_id = j.session_id
                    WHERE j.session_id = $1 AND p.run_id = $2 AND p.fence = $3 AND p.state = 'working'
                      AND p.last_seq IS NOT DISTINCT FROM $4
                    FOR UPDATE OF j, p
                ), head AS (
                    UPDATE journals j SET last_seq = j.last_seq + cardinality($5::text[])
                    FROM mine WHERE j.session_id = $1
                    RETURNING j.last_seq - cardinality($5::text[]) AS base, j.last_seq
                ), written AS (
                    INSERT INTO events (session_id, seq, run_id, type, body)
                    SELECT $1, head.base + e.ordinal, $2, e.type, e.body
                    FROM head CROSS JOIN unnest($5::text[], $6::text[]) WITH ORDINALITY AS e (type, body, ordinal)
                ), noted AS (
                    UPDATE post_responses p SET last_seq = head.last_seq,
                        state = CASE WHEN $7 = 'done' THEN 'done' ELSE p.state END,
                        is_told = p.is_told OR $7 <> 'stages',
                        usage = p.usage || $9,
                        finished_at = CASE WHEN $7 = 'done' THEN now() END,
                        lease_until = CASE WHEN $7 = 'done' THEN NULL ELSE now() + make_interval(secs => $8) END
                    FROM head WHERE p.run_id = $2
                )
                SELECT base + 1 FROM head
                """,
                claimed.run.session_id,
                claimed.run.id,
                claimed.fence,
                claimed.shown_to,
                [event.type for event in events],
                [event.body for event in events],
                then,
                self._lease,
                dict(usage or {}),
            )
            if first_seq is not None:
                return first_seq
            # Nobody else writes under this fence, so what is new in the row is our own commit that was not answered.
            return await connection.fetchval(
                """
                SELECT last_seq - $4::int + 1 FROM post_responses
                WHERE run_id = $1 AND fence = $2 AND last_seq IS DISTINCT FROM $3::bigint
                """,
                claimed.run.id,
                claimed.fence,
                claimed.shown_to,
                len(events),
            )

    async def renew(self, claims: Sequence[PostClaim]) -> dict[RunId, str | None]:
        """Keep the leases of those claims that are not void, and tell who asked any of them to stop."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                UPDATE post_responses p SET lease_until = now() + make_interval(secs => $3)
                FROM unnest($1::uuid[], $2::bigint[]) AS c (run_id, fence)
                WHERE p.run_id = c.run_id AND p.fence = c.fence AND p.state = 'working'
                RETURNING p.run_id, p.interrupt_by
                """,
                [claimed.run.id for claimed in claims],
                [claimed.fence for claimed in claims],
                self._lease,
            )
        return {RunId(row["run_id"]): row["interrupt_by"] for row in rows}

    async def give_back(self, claimed: PostClaim) -> None:
        """Let somebody else do the work from the beginning; nothing changes if it is done or the claim is void."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                UPDATE post_responses SET state = 'waiting', replica_id = NULL, lease_until = NULL
                WHERE run_id = $1 AND fence = $2 AND state = 'working'
                """,
                claimed.run.id,
                claimed.fence,
            )

    async def request_interrupt(
        self, session_id: SessionId, run_id: RunId, by: str, replica_id: ReplicaId
    ) -> InterruptNoted | None:
        """Note durably that unfinished work is to stop, and tell whoever does it; None if there is no such work.

        Work that nobody does is claimed.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH found AS (
                    SELECT run_id, state = 'waiting' AS is_free FROM post_responses
                    WHERE session_id = $1 AND run_id = $2 AND state <> 'done' FOR UPDATE
                ), noted AS (
                    UPDATE post_responses p SET interrupt_by = coalesce(p.interrupt_by, $3), state = 'working',
                        replica_id = CASE WHEN is_free THEN $4 ELSE p.replica_id END,
                        fence = CASE WHEN is_free THEN p.fence + 1 ELSE p.fence END,
                        lease_until = CASE WHEN is_free THEN now() + make_interval(secs => $5) ELSE p.lease_until END
                    FROM found WHERE p.run_id = found.run_id
                    RETURNING p.run_id, p.fence, p.last_seq, p.interrupt_by, p.jobs, p.is_told, is_free
                )
                SELECT r.*, n.fence, n.last_seq AS shown_to, n.interrupt_by AS told_by, n.is_free,
                       n.jobs, n.is_told,
                       CASE WHEN NOT n.is_free THEN pg_notify('colloquy_interrupts', n.run_id::text) END
                FROM noted n JOIN runs r ON r.id = n.run_id
                """,
                session_id,
                run_id,
                by,
                replica_id,
                self._lease,
            )
        return None if row is None else InterruptNoted(_claim(row) if row["is_free"] else None)

    async def newest(self, session_id: SessionId, owner_id: UserId) -> RunId | None:
        """The run of which there is more to be told in the owner's session, the newest of such runs."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                SELECT run_id FROM post_responses
                WHERE session_id = $1 AND owner_id = $2 AND state <> 'done' AND NOT is_told
                ORDER BY position DESC LIMIT 1
                """,
                session_id,
                owner_id,
            )


def _claim(row: "Record") -> PostClaim:
    return PostClaim(
        record(RunRecord, row), row["fence"], row["shown_to"], row["told_by"], tuple(row["jobs"]), row["is_told"]
    )
