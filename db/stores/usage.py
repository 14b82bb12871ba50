"""What was used: rows that outlive what they were used for. The statement that ends a run writes those of runs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from db.ids import PersonaId, SessionId, UserId
from db.pool import Database
from db.stores.rows import records

UsageGroup = Literal["day", "model", "connection", "session", "persona", "kind"]


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What belongs together; `key` is None for what has no such thing, or for everything."""

    key: str | None
    runs: int
    input_tokens: int
    output_tokens: int
    thinking_tokens: int
    estimated_tokens: int


class UsageStore:
    """Sums over the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_trial(
        self,
        trial_id: UUID,
        owner_id: UserId,
        session_id: SessionId | None,
        persona_id: PersonaId | None,
        *,
        input_tokens: int,
        output_tokens: int,
        thinking_tokens: int,
    ) -> None:
        """What models were asked while a prompt or a script was tried out; written once for each trial."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO usage_entries
                    (run_id, part, owner_id, session_id, persona_id, kind, input_tokens, output_tokens, thinking_tokens)
                VALUES ($1, 'trial', $2, $3, $4, 'trial', $5, $6, $7)
                ON CONFLICT (run_id, part) DO NOTHING
                """,
                trial_id,
                owner_id,
                session_id,
                persona_id,
                input_tokens,
                output_tokens,
                thinking_tokens,
            )

    async def tokens_since(self, owner_id: UserId, since: datetime) -> int:
        """All tokens of the owner since then."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                SELECT coalesce(sum(input_tokens + output_tokens + estimated_tokens), 0)::bigint
                FROM usage_entries WHERE owner_id = $1 AND at >= $2
                """,
                owner_id,
                since,
            )

    async def sums(
        self, owner_id: UserId, since: datetime, until: datetime, *, by: UsageGroup | None, limit: int
    ) -> list[UsageSum]:
        """The owner's tokens in that time, by days in order, else what was used most first.

        Without `by` that is one row, even if nothing was used.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH found AS (
                    SELECT u.*, CASE $4
                        WHEN 'day' THEN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') WHEN 'model' THEN model
                        WHEN 'connection' THEN connection WHEN 'session' THEN session_id::text
                        WHEN 'persona' THEN persona_id::text WHEN 'kind' THEN kind END AS key
                    FROM usage_entries u WHERE owner_id = $1 AND at >= $2 AND at < $3
                )
                SELECT key, count(*) FILTER (WHERE kind = 'reply') AS runs,
                    coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
                    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
                    coalesce(sum(thinking_tokens), 0)::bigint AS thinking_tokens,
                    coalesce(sum(estimated_tokens), 0)::bigint AS estimated_tokens
                FROM found
                GROUP BY GROUPING SETS ((key), ()) HAVING (GROUPING(key) = 1) = ($4::text IS NULL)
                ORDER BY CASE WHEN $4 = 'day' THEN key END,
                    sum(input_tokens + output_tokens + estimated_tokens) DESC, key
                LIMIT $5
                """,
                owner_id,
                since,
                until,
                by,
                limit,
            )
        return records(UsageSum, rows)
