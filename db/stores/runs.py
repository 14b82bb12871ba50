"""Runs: how they end, in one transaction, and what is known of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.ids import MessageId, PersonaId, RunId, SessionId, UserId
from db.pool import Database
from db.records import MessageRecord, RunRecord
from db.stores.branches import newest_leaf
from db.stores.events import NewEvent
from db.stores.leases import Claimed, Lease, lock_journal
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection


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
class Spent:
    """Tokens that a run has cost: those that its model's server counted, and our estimate of what it told nothing of.

    `connection` and `model` are those that answered, as far as it came to that.
    """

    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    estimated_tokens: int
    connection: str | None
    model: str | None
    persona_id: PersonaId | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, with the events that say so.

    `spent` is what it has cost, as it is counted. With `post_response` there is more to be told of it later; `jobs` are
    what the service does for itself then. `context` tells what filled the model's window.
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
    spent: Spent | None = None

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
    """Ends runs, stops them, and tells of them."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease = lease_seconds

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
            head = await lock_journal(connection, claimed.run.session_id)
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

    async def request_interrupt(self, session_id: SessionId, run_id: RunId, by: str) -> RunRecord | None:
        """Note durably that an unfinished run is to stop; None if there is no such run."""
        async with self._database.transaction() as connection:
            await lock_journal(connection, session_id)
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
            head = await lock_journal(connection, run.session_id)
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
            head = await lock_journal(connection, run.session_id)
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


async def _end(
    connection: "PooledConnection", claimed: Claimed, ending: Ending, *, unless_others_wait: bool
) -> int | None:
    """Write a run's end in one statement and give its lease back; the position of the first of its last events.

    None, and nothing written, if the lease is not held any more. With `unless_others_wait` also if a message waits
    in the session, or if something was written while the statement waited for the journal's row.
    """
    reply, spent = ending.reply, ending.spent
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
        ), counted AS (
            INSERT INTO usage_entries
                (run_id, part, owner_id, session_id, persona_id, kind, connection, model, input_tokens, output_tokens,
                 thinking_tokens, estimated_tokens)
            SELECT id, 'reply', owner_id, session_id, $23, 'reply', $24, $25, $26, $27, $28, $29
            FROM ended WHERE $26::bigint IS NOT NULL
            ON CONFLICT DO NOTHING
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
        spent and spent.persona_id,
        spent and spent.connection,
        spent and spent.model,
        spent and spent.input_tokens,
        spent and spent.output_tokens,
        spent and spent.thinking_tokens,
        spent and spent.estimated_tokens,
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
