"""Runs: accepted once, owned by one replica at a time, finished in one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from db.errors import DatabaseError, DuplicateName
from db.ids import MessageId, ReplicaId, RunId, SessionId, UserId
from db.pool import Database
from db.records import ContextItemRecord, MessageRecord, RunRecord
from db.stores.branches import newest_leaf
from db.stores.events import NewEvent
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection

WhenBusy = Literal["interrupt", "queue", "reject", "steer"]


Announce = Callable[[bool, RunId], NewEvent]
"""Makes the event that says that a message is accepted: whether it waits, and under which run it is told."""


class NoSuchSession(DatabaseError):
    """The owner has no session with that id."""


class RunIsActive(DatabaseError):
    """The session has a run that is not finished."""


class QueueIsFull(DatabaseError):
    """Too many messages wait in this session."""


class NoSuchMessage(DatabaseError):
    """The session has no message of the user with that id."""


@dataclass(frozen=True, slots=True)
class NewUserMessage:
    """One user turn to be stored.

    With files, `parts` are its words and them in order, and `told` is what the context tells of them beside the words.
    """

    id: MessageId
    content: str
    token_count: int
    parts: Sequence[dict[str, Any]] = ()
    told: ContextItemRecord | None = None
    context_tokens: int | None = None
    """What the words and the files cost together in the context, where there are files."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a user asks for: one or more user turns, answered by one reply.

    The turns follow the newest message of the active branch, or stand beside the message that the first one
    `replaces`. A run without turns of its own `answers` one that is there already.
    """

    id: RunId
    session_id: SessionId
    owner_id: UserId
    client_message_id: str
    messages: Sequence[NewUserMessage]
    request: dict[str, Any]
    replaces: MessageId | None = None
    answers: MessageId | None = None


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


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run as it was stored: to be performed now if `claimed`, else waiting for the unfinished run `busy`."""

    run: RunRecord
    is_new: bool
    claimed: Claimed | None = None
    busy: RunId | None = None


@dataclass(frozen=True, slots=True)
class NewReply:
    """The assistant message that closes a run.

    `context_rest` are the tokens of what no item of the context tells of it, None if it has no items. `stopped_by` is
    who stopped it.
    """

    id: MessageId
    content: str
    parts: list[dict[str, Any]]
    token_count: int
    provider: str | None
    model: str | None
    context_rest: int | None = None
    stopped_by: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, with the events that say so.

    With `post_response` there is more to be told of it later; `jobs` are what the service does for itself then.
    `context` tells what filled the model's window.
    """

    events: Sequence[NewEvent]
    reply: NewReply | None
    finish_reason: str
    error: dict[str, Any] | None
    usage: dict[str, Any]
    timings: dict[str, Any]
    post_response: bool = False
    jobs: Sequence[str] = ()
    context: dict[str, Any] | None = None

    @property
    def leaves_work(self) -> bool:
        """Whether there is anything to do after it."""
        return self.post_response or bool(self.jobs)


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished run: the position of the first of its last events, and the run that is next in the session."""

    first_seq: int
    next: Claimed | None


@dataclass(frozen=True, slots=True)
class SteppedBack:
    """The event that tells that another branch is shown again, and its position."""

    seq: int
    event: NewEvent


class RunStore:
    """The life of runs in the database."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease = lease_seconds

    async def accept(
        self,
        new: NewRun,
        *,
        replica_id: ReplicaId,
        when_busy: WhenBusy,
        queue_limit: int,
        announce: Announce,
    ) -> Accepted:
        """Store the user's words and the run in one transaction, and take the lease if the session is idle.

        The same `client_message_id` gives the run that was accepted before. `announce(queued, run_id)` makes the
        event that says so; with `when_busy="steer"` it names the run that is to take the words, if that can be. Raises
        `NoSuchSession`, `NoSuchMessage`, `RunIsActive` (with `when_busy="reject"`), `QueueIsFull`.
        """
        try:
            async with self._database.connection() as connection:
                idle = await self._insert(connection, new, replica_id, announce(False, new.id), waits=False)
        except DuplicateName:
            idle = None  # a retry: the other way finds the run that is there
        if idle is not None:
            return Accepted(idle.run, is_new=True, claimed=idle)
        return await self._accept_busy(new, replica_id, when_busy, queue_limit, announce)

    async def _accept_busy(
        self,
        new: NewRun,
        replica_id: ReplicaId,
        when_busy: WhenBusy,
        queue_limit: int,
        announce: Announce,
    ) -> Accepted:
        async with self._database.transaction() as connection:
            # The journal's row is locked before any other row is read, here and everywhere: what follows sees
            # the session as the last writer left it, and no two transactions wait for each other.
            head = await _lock_journal(connection, new.session_id)
            owned = await connection.fetchval(
                "SELECT true FROM sessions WHERE id = $1 AND owner_id = $2", new.session_id, new.owner_id
            )
            if head is None or not owned:
                raise NoSuchSession(str(new.session_id))
            rows = await connection.fetch(
                """
                SELECT * FROM runs
                WHERE session_id = $1 AND (state <> 'finished' OR client_message_id = $2) ORDER BY first_seq
                """,
                new.session_id,
                new.client_message_id,
            )
            known = records(RunRecord, rows)
            for run in known:
                if run.client_message_id == new.client_message_id:
                    return _accepted_before(run, known[0], new, head["run_id"], Lease(replica_id, head["fence"]))
            await _check_message(connection, new.session_id, new.replaces or new.answers)
            if known and when_busy == "reject":
                raise RunIsActive(str(known[0].id))
            if len(known) > queue_limit:
                raise QueueIsFull(str(new.session_id))
            steers = await _steers(connection, new, known) if when_busy == "steer" else None
            event = announce(bool(known) and steers is None, steers or new.id)
            claimed = await self._insert(connection, new, replica_id, event, waits=bool(known), steers=steers)
            assert claimed is not None, "nothing can have changed under the lock"
            if known and when_busy == "interrupt":
                # A message that is only waiting for its own interrupt to take effect is as good as running.
                hasty = [run.id for run in known[1:] if run.request.get("when_busy") == "interrupt"]
                await _mark_interrupted(connection, [known[0].id, *hasty], "message")
        if known:
            return Accepted(claimed.run, is_new=True, busy=known[0].id)
        return Accepted(claimed.run, is_new=True, claimed=claimed)

    async def _insert(
        self,
        connection: "PooledConnection",
        new: NewRun,
        replica_id: ReplicaId,
        event: NewEvent,
        *,
        waits: bool,
        steers: RunId | None = None,
    ) -> Claimed | None:
        """Store it all in one statement; None if the session is not idle (and the run does not wait for it).

        Without a lock the statement sees the session as it was when it began. `seen` makes sure that nothing has
        been written since: PostgreSQL compares again after it has waited for the row.
        """
        told = [(message, message.told) for message in new.messages if message.told is not None]
        row = await connection.fetchrow(
            """
            WITH seen AS (
                SELECT j.last_seq, s.active_leaf_id FROM journals j JOIN sessions s ON s.id = j.session_id
                WHERE j.session_id = $1 AND s.owner_id = $13
                  AND ($8 OR NOT EXISTS (SELECT FROM runs WHERE session_id = $1 AND state <> 'finished'))
            ), place AS (
                -- What is said now follows the newest message, and waits there for the newest reply to it.
                SELECT seen.last_seq, seen.active_leaf_id AS parent_id,
                       (SELECT id FROM runs
                        WHERE session_id = $1 AND state <> 'finished' AND user_message_id = seen.active_leaf_id
                        ORDER BY first_seq DESC LIMIT 1) AS waits_for
                FROM seen
                WHERE $14::uuid IS NULL
                  AND ($15::uuid IS NULL
                       OR EXISTS (SELECT FROM messages WHERE id = $15 AND session_id = $1 AND role = 'user'))
                UNION ALL
                -- What is said in place of something else stands beside it, and waits for what that waits for.
                SELECT seen.last_seq, old.parent_id, old.waits_for
                FROM seen JOIN messages old ON old.id = $14 AND old.session_id = $1 AND old.role = 'user'
            ), head AS (
                UPDATE journals j SET
                    last_seq = j.last_seq + 1,
                    run_id = CASE WHEN $8 THEN j.run_id ELSE $2 END,
                    replica_id = CASE WHEN $8 THEN j.replica_id ELSE $9 END,
                    fence = CASE WHEN $8 THEN j.fence ELSE j.fence + 1 END,
                    lease_until = CASE WHEN $8 THEN j.lease_until ELSE now() + make_interval(secs => $10) END
                FROM place
                WHERE j.session_id = $1 AND j.last_seq = place.last_seq AND ($8 OR j.run_id IS NULL)
                RETURNING j.last_seq, j.fence, place.parent_id, place.waits_for
            ), event AS (
                INSERT INTO events (session_id, seq, run_id, type, body)
                SELECT $1, head.last_seq, coalesce($16::uuid, $2), $11, $12 FROM head
            ), said AS (
                INSERT INTO messages (id, session_id, parent_id, waits_for, run_id, role, content, token_count, parts,
                                      context_tokens)
                SELECT t.id, $1, coalesce(lag(t.id) OVER (ORDER BY t.ordinal), head.parent_id),
                       CASE WHEN t.ordinal = 1 THEN head.waits_for END, $2, 'user', t.content, t.token_count,
                       $17::jsonb -> (t.ordinal - 1)::int, t.context_tokens
                FROM head CROSS JOIN unnest($4::uuid[], $5::text[], $6::int[], $18::int[])
                    WITH ORDINALITY AS t (id, content, token_count, context_tokens, ordinal)
            ), told AS (
                INSERT INTO context_items (session_id, message_id, position, body, token_count)
                SELECT $1, t.id, 0, t.body, t.token_count
                FROM head CROSS JOIN unnest($19::uuid[], $20::jsonb[], $21::int[]) AS t (id, body, token_count)
            ), leaf AS (
                UPDATE sessions s SET active_leaf_id = coalesce($15, ($4::uuid[])[cardinality($4::uuid[])]),
                    updated_at = now()
                FROM head WHERE s.id = $1
            )
            INSERT INTO runs
                (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq, started_at,
                 handed_to)
            SELECT $2, $1, $13, $3, coalesce($15, ($4::uuid[])[cardinality($4::uuid[])]),
                   CASE WHEN $8 THEN 'queued' ELSE 'running' END, $7,
                   head.last_seq, CASE WHEN $8 THEN NULL ELSE now() END, $16
            FROM head
            RETURNING *, (SELECT fence FROM head) AS fence
            """,
            new.session_id,
            new.id,
            new.client_message_id,
            [message.id for message in new.messages],
            [message.content for message in new.messages],
            [message.token_count for message in new.messages],
            new.request,
            waits,
            replica_id,
            self._lease,
            event.type,
            event.body,
            new.owner_id,
            new.replaces,
            new.answers,
            steers,
            [list(message.parts) for message in new.messages],
            [message.context_tokens for message in new.messages],
            [message.id for message, _ in told],
            [item.body for _, item in told],
            [item.token_count for _, item in told],
        )
        return None if row is None else Claimed(record(RunRecord, row), Lease(replica_id, row["fence"]))

    async def finish(self, claimed: Claimed, ending: Ending, *, take_next: bool) -> Ended | None:
        """Write the last events, the reply and the end of the run in one transaction.

        With `take_next` the session's next queued run is claimed in the same transaction; else the lease is
        given back. Returns None if the lease was lost: then nothing is written. Doing it again after an
        unanswered commit changes nothing and answers the same.
        """
        async with self._database.connection() as connection:
            first_seq = await _end(connection, claimed, ending, unless_others_wait=True)
        if first_seq is not None:
            return Ended(first_seq, None)
        async with self._database.transaction() as connection:
            head = await _lock_journal(connection, claimed.run.session_id)
            first_seq = await _end(connection, claimed, ending, unless_others_wait=False)
            if head is None or first_seq is None:
                return await _ended_before(connection, claimed, len(ending.events))
            following = await self._start_next(connection, claimed) if take_next else None
        return Ended(first_seq, following)

    async def _start_next(self, connection: "PooledConnection", ended: Claimed) -> Claimed | None:
        row = await connection.fetchrow(
            """
            WITH next AS (
                UPDATE runs SET state = 'running', started_at = now()
                WHERE id = (SELECT id FROM runs WHERE session_id = $1 AND state = 'queued' ORDER BY first_seq LIMIT 1)
                RETURNING *
            ), head AS (
                UPDATE journals j SET run_id = next.id, fence = j.fence + 1,
                    lease_until = now() + make_interval(secs => $2)
                FROM next WHERE j.session_id = $1 RETURNING j.fence
            )
            SELECT next.*, head.fence FROM next CROSS JOIN head
            """,
            ended.run.session_id,
            self._lease,
        )
        return None if row is None else Claimed(record(RunRecord, row), Lease(ended.lease.replica_id, row["fence"]))

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

    async def request_interrupt(self, session_id: SessionId, run_id: RunId, by: str) -> RunRecord | None:
        """Note durably that an unfinished run is to stop; None if there is no such run."""
        async with self._database.transaction() as connection:
            await _lock_journal(connection, session_id)
            row = await connection.fetchrow(
                """
                UPDATE runs SET interrupt_by = coalesce(interrupt_by, $3)
                WHERE id = $2 AND session_id = $1 AND state <> 'finished' RETURNING *
                """,
                session_id,
                run_id,
                by,
            )
        return record_or_none(RunRecord, row)

    async def cancel_queued(self, run: RunRecord, events: Sequence[NewEvent]) -> int | None:
        """End a run that has not begun, and return the position of its last event; None if it has begun."""
        async with self._database.transaction() as connection:
            head = await _lock_journal(connection, run.session_id)
            if head is None:
                return None
            last_seq = head["last_seq"] + len(events)
            ended = await connection.fetchval(
                """
                UPDATE runs SET state = 'finished', finished_at = now(), finish_reason = 'interrupted', last_seq = $2
                WHERE id = $1 AND state = 'queued' RETURNING true
                """,
                run.id,
                last_seq,
            )
            if not ended:
                return None
            await connection.execute(
                """
                WITH head AS (UPDATE journals SET last_seq = $3 WHERE session_id = $1)
                INSERT INTO events (session_id, seq, run_id, type, body)
                SELECT $1, $3 - cardinality($4::text[]) + e.ordinal, $2, e.type, e.body
                FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS e (type, body, ordinal)
                """,
                run.session_id,
                run.id,
                last_seq,
                [event.type for event in events],
                [event.body for event in events],
            )
        return last_seq

    async def step_back(self, run: RunRecord, announce: Callable[[MessageId], NewEvent]) -> SteppedBack | None:
        """Show again what followed the message that the ended run was to answer once more and did not.

        `announce(leaf)` makes the event that says so. None if there is nothing to be shown instead, or somebody
        looks at something else by now.
        """
        async with self._database.transaction() as connection:
            head = await _lock_journal(connection, run.session_id)
            leaf = await newest_leaf(connection, run.session_id, run.user_message_id)
            if head is None or leaf is None or leaf == run.user_message_id:
                return None
            event = announce(leaf)
            seq = await connection.fetchval(
                """
                WITH leaf AS (
                    UPDATE sessions SET active_leaf_id = $3 WHERE id = $1 AND active_leaf_id = $2 RETURNING id
                ), head AS (
                    UPDATE journals j SET last_seq = j.last_seq + 1 FROM leaf WHERE j.session_id = leaf.id
                    RETURNING j.last_seq
                ), event AS (
                    INSERT INTO events (session_id, seq, type, body) SELECT $1, last_seq, $4, $5 FROM head
                )
                SELECT last_seq FROM head
                """,
                run.session_id,
                run.user_message_id,
                leaf,
                event.type,
                event.body,
            )
        return None if seq is None else SteppedBack(seq, event)

    async def notify_interrupt(self, run_id: RunId) -> None:
        """Ask the replica that performs the run, whichever it is, to stop it."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify('colloquy_interrupts', $1)", str(run_id))

    async def get(self, run_id: RunId, session_id: SessionId, owner_id: UserId) -> RunRecord | None:
        """The owner's run with that id in that session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT * FROM runs WHERE id = $1 AND session_id = $2 AND owner_id = $3
                """,
                run_id,
                session_id,
                owner_id,
            )
        return record_or_none(RunRecord, row)

    async def page(
        self, session_id: SessionId, owner_id: UserId, *, before: RunId | None, limit: int
    ) -> list[RunRecord]:
        """Runs of the owner's session, newest first, those made before the run `before`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM runs
                WHERE session_id = $1 AND owner_id = $2 AND ($3::uuid IS NULL OR id < $3)
                ORDER BY id DESC LIMIT $4
                """,
                session_id,
                owner_id,
                before,
                limit,
            )
        return records(RunRecord, rows)

    async def session_of(self, run_id: RunId, owner_id: UserId) -> SessionId | None:
        """The session of the owner's run with that id."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT session_id FROM runs WHERE id = $1 AND owner_id = $2", run_id, owner_id
            )

    async def active(self, session_id: SessionId, owner_id: UserId) -> RunRecord | None:
        """The oldest unfinished run of the owner's session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT * FROM runs
                WHERE session_id = $1 AND owner_id = $2 AND state <> 'finished' ORDER BY first_seq LIMIT 1
                """,
                session_id,
                owner_id,
            )
        return record_or_none(RunRecord, row)

    async def sent_as(self, client_message_id: str, session_id: SessionId, owner_id: UserId) -> RunRecord | None:
        """The run of the owner's session that was accepted for that `client_message_id`."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM runs WHERE session_id = $1 AND owner_id = $2 AND client_message_id = $3",
                session_id,
                owner_id,
                client_message_id,
            )
        return record_or_none(RunRecord, row)

    async def newest_with_context(self, session_id: SessionId, owner_id: UserId) -> RunRecord | None:
        """The newest run of the owner's session of which is known what filled its window."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT * FROM runs
                WHERE session_id = $1 AND owner_id = $2 AND context IS NOT NULL ORDER BY first_seq DESC LIMIT 1
                """,
                session_id,
                owner_id,
            )
        return record_or_none(RunRecord, row)

    async def messages_of(self, run: RunRecord) -> list[MessageRecord]:
        """The message that a run answers and its reply, as far as they are there."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM messages WHERE session_id = $1 AND id = ANY ($2::uuid[])",
                run.session_id,
                [run.user_message_id, run.reply_message_id],
            )
        return records(MessageRecord, rows)

    async def answered_by(self, session_id: SessionId, owner_id: UserId, reply_id: MessageId) -> MessageId | None:
        """The message to which the owner's session is being given that reply just now."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                SELECT r.user_message_id FROM runs r
                JOIN events e ON e.session_id = r.session_id AND e.seq >= r.first_seq AND e.run_id = r.id
                WHERE r.session_id = $1 AND r.owner_id = $2 AND r.state = 'running'
                  AND e.type = 'assistant_start' AND e.body::jsonb ->> 'message_id' = $3
                """,
                session_id,
                owner_id,
                str(reply_id),
            )


def _accepted_before(run: RunRecord, oldest: RunRecord, new: NewRun, leased: RunId | None, lease: Lease) -> Accepted:
    """A run that is there already: somebody's retry, or our own commit that was not answered (then it is still new)."""
    if run.id != new.id:
        return Accepted(run, is_new=False)
    if leased == run.id:
        return Accepted(run, is_new=True, claimed=Claimed(run, lease))
    return Accepted(run, is_new=True, busy=None if oldest.id == run.id else oldest.id)


async def _lock_journal(connection: "PooledConnection", session_id: SessionId):
    return await connection.fetchrow(
        "SELECT last_seq, fence, run_id FROM journals WHERE session_id = $1 FOR UPDATE", session_id
    )


async def _steers(connection: "PooledConnection", new: NewRun, unfinished: Sequence[RunRecord]) -> RunId | None:
    """The running run that can take the new words before anything else that waits; None if they are not for it.

    Then they stand behind what it answers, with nothing in between but what steers it, too.
    """
    if not unfinished or unfinished[0].state != "running" or new.replaces is not None:
        return None
    if any(run.handed_to is None or run.interrupt_by for run in unfinished[1:]):
        return None
    leaf = await connection.fetchval("SELECT active_leaf_id FROM sessions WHERE id = $1", new.session_id)
    return unfinished[0].id if leaf == unfinished[-1].user_message_id else None


async def _check_message(connection: "PooledConnection", session_id: SessionId, message_id: MessageId | None) -> None:
    if message_id is None:
        return
    found = await connection.fetchval(
        "SELECT true FROM messages WHERE id = $1 AND session_id = $2 AND role = 'user'", message_id, session_id
    )
    if not found:
        raise NoSuchMessage(str(message_id))


async def _mark_interrupted(connection: "PooledConnection", run_ids: Sequence[RunId], by: str) -> None:
    await connection.execute(
        "UPDATE runs SET interrupt_by = coalesce(interrupt_by, $2) WHERE id = ANY ($1::uuid[])", run_ids, by
    )


async def _end(
    connection: "PooledConnection", claimed: Claimed, ending: Ending, *, unless_others_wait: bool
) -> int | None:
    """Write a run's end in one statement and give its lease back; the position of the first of its last events.

    None, and nothing written, if the lease is not held any more. With `unless_others_wait` also if a message waits
    in the session, or if something was written while the statement waited for the journal's row.
    """
    reply = ending.reply
    return await connection.fetchval(
        """
        WITH seen AS (
            SELECT last_seq FROM journals
            WHERE session_id = $1
              AND NOT ($4 AND EXISTS (SELECT FROM runs WHERE session_id = $1 AND state = 'queued'))
        ), head AS (
            UPDATE journals j SET last_seq = j.last_seq + cardinality($5::text[]), fence = j.fence + 1,
                run_id = NULL, lease_until = NULL
            FROM seen
            WHERE j.session_id = $1 AND j.run_id = $2 AND j.fence = $3 AND j.last_seq = seen.last_seq
            RETURNING seen.last_seq AS base, j.last_seq
        ), written AS (
            INSERT INTO events (session_id, seq, run_id, type, body)
            SELECT $1, head.base + e.ordinal, $2, e.type, e.body
            FROM head CROSS JOIN unnest($5::text[], $6::text[]) WITH ORDINALITY AS e (type, body, ordinal)
        ), ended AS (
            UPDATE runs r SET state = 'finished', finished_at = now(), finish_reason = $7, error = $8, usage = $9,
                timings = $10, reply_message_id = $11, last_seq = head.last_seq, context = $22
            FROM head WHERE r.id = $2
            RETURNING r.id, r.session_id, r.owner_id, r.first_seq
        ), left_to_do AS (
            INSERT INTO post_responses (run_id, session_id, owner_id, position, jobs, is_told)
            SELECT id, session_id, owner_id, first_seq, $21, NOT $18 FROM ended
            WHERE $18 OR cardinality($21::text[]) > 0
        ), replied AS (
            INSERT INTO messages
                (id, session_id, parent_id, run_id, role, content, parts, token_count, finish_reason, provider, model,
                 context_tokens, stopped_by)
            SELECT $11, $1, $12, $2, 'assistant', $13, $14, $15, $7, $16, $17,
                   (SELECT sum(i.token_count) + $19 FROM context_items i WHERE i.message_id = $11), $20
            FROM head WHERE $11::uuid IS NOT NULL
        ), moved AS (
            -- A message that waited for this reply was stored as a child of the same user message. It moves behind
            -- the reply, so the history reads question, answer, question, whatever was committed first.
            UPDATE messages m SET parent_id = $11, waits_for = NULL
            FROM head WHERE m.parent_id = $12 AND m.session_id = $1 AND m.waits_for = $2 AND $11::uuid IS NOT NULL
        ), leaf AS (
            -- Of several replies to the same message the one that was asked for last is to be seen in the end.
            UPDATE sessions s SET updated_at = now(),
                active_leaf_id = CASE
                    WHEN s.active_leaf_id = $12 AND NOT EXISTS (
                        SELECT FROM runs WHERE session_id = $1 AND state = 'queued' AND user_message_id = $12
                    ) THEN $11 ELSE s.active_leaf_id END
            FROM head WHERE s.id = $1 AND $11::uuid IS NOT NULL
        )
        SELECT head.base + 1 FROM head
        """,
        claimed.run.session_id,
        claimed.run.id,
        claimed.lease.fence,
        unless_others_wait,
        [event.type for event in ending.events],
        [event.body for event in ending.events],
        ending.finish_reason,
        ending.error,
        ending.usage,
        ending.timings,
        reply and reply.id,
        claimed.run.user_message_id,
        reply and reply.content,
        reply and reply.parts,
        reply and reply.token_count,
        reply and reply.provider,
        reply and reply.model,
        ending.post_response,
        reply and reply.context_rest,
        reply and reply.stopped_by,
        list(ending.jobs),
        ending.context,
    )


async def _ended_before(connection: "PooledConnection", claimed: Claimed, count: int) -> Ended | None:
    """What an unanswered commit has done already; None if it was not ours that ended the run."""
    row = await connection.fetchrow(
        """
        SELECT j.fence, r.last_seq - $4 + 1 AS ending_seq, n.* FROM runs r
        JOIN journals j ON j.session_id = r.session_id
        LEFT JOIN runs n ON n.id = j.run_id AND j.replica_id = $2 AND j.fence = $3 + 2
        WHERE r.id = $1 AND r.state = 'finished'
        """,
        claimed.run.id,
        claimed.lease.replica_id,
        claimed.lease.fence,
        count,
    )
    if row is None:
        return None
    if row["id"] is None:
        return Ended(row["ending_seq"], None)
    return Ended(row["ending_seq"], Claimed(record(RunRecord, row), Lease(claimed.lease.replica_id, row["fence"])))
