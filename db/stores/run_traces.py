"""How the prompts of runs came about."""

from typing import Any

from db.ids import RunId, UserId
from db.pool import Database
from db.records import RunTraceRecord
from db.stores.rows import record_or_none


class RunTraceStore:
    """The prompt and its trace, one per run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, run_id: RunId, owner_id: UserId, *, prompt: str, trace: Any) -> None:
        """Store a run's prompt and trace, in place of those it had; for a run that is gone, nothing."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO run_traces (run_id, session_id, prompt, trace)
                SELECT r.id, r.session_id, $3, $4::jsonb FROM runs r WHERE r.id = $1 AND r.owner_id = $2
                FOR KEY SHARE
                ON CONFLICT (run_id) DO UPDATE SET prompt = excluded.prompt, trace = excluded.trace
                """,
                run_id,
                owner_id,
                prompt,
                trace,
            )

    async def get(self, run_id: RunId, owner_id: UserId) -> RunTraceRecord | None:
        """The trace of the owner's run."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT t.* FROM run_traces t JOIN runs r ON r.id = t.run_id WHERE t.run_id = $1 AND r.owner_id = $2
                """,
                run_id,
                owner_id,
            )
        return record_or_none(RunTraceRecord, row)
