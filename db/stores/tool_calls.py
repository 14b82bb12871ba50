"""Calls of tools: written down before they are made, so that each acts at most once.

What a run writes carries its fence. The journal's row is held meanwhile, and locked before any other, as everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from db.ids import RunId, SessionId, UserId
from db.pool import Database
from db.records import CallState, ToolCallRecord
from db.stores.leases import Claimed
from db.stores.rows import record_or_none, records

Decision = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call as the model asked for it, or as somebody has changed it."""

    id: str
    name: str
    server: str | None
    name_there: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """A piece of what a tool answered, and how long the whole is, in characters."""

    piece: str
    length: int


class ToolCallStore:
    """The calls of sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(
        self, claimed: Claimed, call: NewCall, *, reason: str, parameters: Mapping[str, Any], seconds: float
    ) -> ToolCallRecord | None:
        """Let a call wait for somebody's word; one that waits already goes on waiting. None if the lease is void."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH held AS (
                    SELECT 1 FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR SHARE
                )
                INSERT INTO tool_calls AS c
                    (session_id, run_id, id, name, server, name_there, arguments, state, reason, parameters, expires_at)
                SELECT $1, $2, $4, $5, $6, $7, $8, 'waiting', $9, $10, now() + make_interval(secs => $11) FROM held
                ON CONFLICT (session_id, run_id, id) DO UPDATE SET name = c.name
                RETURNING *
                """,
                claimed.run.session_id,
                claimed.run.id,
                claimed.lease.fence,
                call.id,
                call.name,
                call.server,
                call.name_there,
                call.arguments,
                reason,
                dict(parameters),
                seconds,
            )
        return record_or_none(ToolCallRecord, row)

    async def begin(self, claimed: Claimed, call: NewCall) -> bool:
        """Write down that a call is about to be made; False, and nothing written, if the lease is void."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    """
                    WITH held AS (
                        SELECT 1 FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR SHARE
                    )
                    INSERT INTO tool_calls
                        (session_id, run_id, id, name, server, name_there, arguments, state, started_at)
                    SELECT $1, $2, $4, $5, $6, $7, $8, 'running', now() FROM held
                    ON CONFLICT (session_id, run_id, id)
                        DO UPDATE SET state = 'running', started_at = now(), arguments = excluded.arguments
                    RETURNING true
                    """,
                    claimed.run.session_id,
                    claimed.run.id,
                    claimed.lease.fence,
                    call.id,
                    call.name,
                    call.server,
                    call.name_there,
                    call.arguments,
                )
            )

    async def end(self, claimed: Claimed, call: NewCall, state: CallState, *, result: str, told: str) -> bool:
        """Write down what came of a call, whether it was begun or not; False if the lease is void."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetchval(
                    """
                    WITH held AS (
                        SELECT 1 FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR SHARE
                    )
                    INSERT INTO tool_calls
                        (session_id, run_id, id, name, server, name_there, arguments, state, result, told, finished_at)
                    SELECT $1, $2, $4, $5, $6, $7, $8, $9, $10, $11, now() FROM held
                    ON CONFLICT (session_id, run_id, id)
                        DO UPDATE SET state = excluded.state, result = excluded.result, told = excluded.told,
                            finished_at = now()
                    RETURNING true
                    """,
                    claimed.run.session_id,
                    claimed.run.id,
                    claimed.lease.fence,
                    call.id,
                    call.name,
                    call.server,
                    call.name_there,
                    call.arguments,
                    state,
                    result,
                    told,
                )
            )

    async def close(self, claimed: Claimed, *, begun: str, waiting: str) -> list[ToolCallRecord] | None:
        """End what is open of a run: the model is told `begun` of calls that were made, else `waiting`.

        Returns all calls of the run, oldest first; None, and nothing written, if the lease is void.
        """
        async with self._database.transaction() as connection:
            held = await connection.fetchval(
                "SELECT true FROM journals WHERE session_id = $1 AND run_id = $2 AND fence = $3 FOR SHARE",
                claimed.run.session_id,
                claimed.run.id,
                claimed.lease.fence,
            )
            if not held:
                return None
            await connection.execute(
                """
                UPDATE tool_calls
                SET told = CASE WHEN state = 'running' THEN $3 ELSE $4 END,
                    result = CASE WHEN state = 'running' THEN $3 ELSE $4 END,
                    state = 'interrupted', finished_at = now()
                WHERE session_id = $1 AND run_id = $2 AND finished_at IS NULL
                """,
                claimed.run.session_id,
                claimed.run.id,
                begun,
                waiting,
            )
            rows = await connection.fetch(
                "SELECT * FROM tool_calls WHERE session_id = $1 AND run_id = $2 ORDER BY created_at, id",
                claimed.run.session_id,
                claimed.run.id,
            )
        return records(ToolCallRecord, rows)

    async def of_run(self, session_id: SessionId, run_id: RunId) -> list[ToolCallRecord]:
        """All calls of a run, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM tool_calls WHERE session_id = $1 AND run_id = $2 ORDER BY created_at, id",
                session_id,
                run_id,
            )
        return records(ToolCallRecord, rows)

    async def decide(
        self,
        session_id: SessionId,
        owner_id: UserId,
        call_id: str,
        decision: Decision,
        *,
        arguments: str | None = None,
        reason: str | None = None,
    ) -> ToolCallRecord | None:
        """Give the word that a call of the owner's session waits for; None if none with that id waits."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE tool_calls c
                SET state = $4, decided_at = now(), arguments = coalesce($5, c.arguments),
                    reason = coalesce($6, c.reason)
                FROM sessions s
                WHERE c.session_id = $1 AND c.id = $3 AND c.state = 'waiting' AND c.expires_at > now()
                  AND s.id = c.session_id AND s.owner_id = $2
                RETURNING c.*
                """,
                session_id,
                owner_id,
                call_id,
                decision,
                arguments,
                reason,
            )
        return record_or_none(ToolCallRecord, row)

    async def expire(self, session_id: SessionId, run_id: RunId, call_id: str, *, reason: str) -> ToolCallRecord | None:
        """Reject a call whose time is over unless somebody has decided it; how it stands then, None if it is gone."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE tool_calls SET
                    reason = CASE WHEN state = 'waiting' AND expires_at <= now() THEN $4 ELSE reason END,
                    state = CASE WHEN state = 'waiting' AND expires_at <= now() THEN 'rejected' ELSE state END
                WHERE session_id = $1 AND run_id = $2 AND id = $3 RETURNING *
                """,
                session_id,
                run_id,
                call_id,
                reason,
            )
        return record_or_none(ToolCallRecord, row)

    async def get(self, session_id: SessionId, owner_id: UserId, call_id: str) -> ToolCallRecord | None:
        """The newest call with that id in the owner's session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT c.* FROM tool_calls c JOIN sessions s ON s.id = c.session_id
                WHERE c.session_id = $1 AND c.id = $3 AND s.owner_id = $2 ORDER BY c.created_at DESC LIMIT 1
                """,
                session_id,
                owner_id,
                call_id,
            )
        return record_or_none(ToolCallRecord, row)

    async def waiting(self, session_id: SessionId, owner_id: UserId) -> Sequence[ToolCallRecord]:
        """The calls of the owner's session that wait for somebody's word, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT c.* FROM tool_calls c JOIN sessions s ON s.id = c.session_id
                WHERE c.session_id = $1 AND s.owner_id = $2 AND c.state = 'waiting' ORDER BY c.created_at, c.id
                """,
                session_id,
                owner_id,
            )
        return records(ToolCallRecord, rows)

    async def result(
        self, session_id: SessionId, owner_id: UserId, call_id: str, *, offset: int, characters: int
    ) -> CallResult | None:
        """A piece of what the newest call with that id answered; None if there is none that has ended."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT substr(c.result, $4::int + 1, $5) AS piece, length(c.result) AS length
                FROM tool_calls c JOIN sessions s ON s.id = c.session_id
                WHERE c.session_id = $1 AND c.id = $3 AND s.owner_id = $2 AND c.result IS NOT NULL
                ORDER BY c.created_at DESC LIMIT 1
                """,
                session_id,
                owner_id,
                call_id,
                offset,
                characters,
            )
        return None if row is None else CallResult(row["piece"], row["length"])

    async def notify_decided(self, run_id: RunId) -> None:
        """Tell the replica that performs the run, whichever it is, that one of its calls was decided."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify('colloquy_approvals', $1)", str(run_id))
