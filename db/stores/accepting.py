"""Accepting messages: the user's words and the run that they cause, stored once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from db.errors import DatabaseError, DuplicateName
from db.ids import MessageId, ReplicaId, RunId, SessionId, UserId
from db.pool import Database
from db.records import ContextItemRecord, RunRecord
from db.stores.events import NewEvent
from db.stores.leases import Claimed, Lease, lock_journal
from db.stores.rows import record, records

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
    credential_id: UUID | None = None
    """Through which sign-in or API key it is asked for."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run as it was stored: to be performed now if `claimed`, else waiting for the unfinished run `busy`."""

    run: RunRecord
    is_new: bool
    claimed: Claimed | None = None
    busy: RunId | None = None


class AcceptStore:
    """Takes messages into sessions."""

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
            head = await lock_journal(connection, new.session_id)
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
                 handed_to, credential_id)
            SELECT $2, $1, $13, $3, coalesce($15, ($4::uuid[])[cardinality($4::uuid[])]),
                   CASE WHEN $8 THEN 'queued' ELSE 'running' END, $7,
                   head.last_seq, CASE WHEN $8 THEN NULL ELSE now() END, $16, $22::uuid
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
            new.credential_id,
        )
        return None if row is None else Claimed(record(RunRecord, row), Lease(replica_id, row["fence"]))


def _accepted_before(run: RunRecord, oldest: RunRecord, new: NewRun, leased: RunId | None, lease: Lease) -> Accepted:
    """A run that is there already: somebody's retry, or our own commit that was not answered (then it is still new)."""
    if run.id != new.id:
        return Accepted(run, is_new=False)
    if leased == run.id:
        return Accepted(run, is_new=True, claimed=Claimed(run, lease))
    return Accepted(run, is_new=True, busy=None if oldest.id == run.id else oldest.id)


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
