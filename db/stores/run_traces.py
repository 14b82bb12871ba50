"""How the prompts of runs came about."""

from db.ids import RunId, SessionId, UserId
from db.pool import Database
from db.records import RunTraceRecord
from db.stores.rows import record_or_none


class RunTraceStore:
    """The prompt and its trace, one per run; `TurnStore` writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    async def before(self, run_id: RunId, session_id: SessionId, owner_id: UserId) -> RunTraceRecord | None:
        """The trace of the run before that one in the owner's session, of those that have any."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT t.* FROM runs r CROSS JOIN LATERAL (SELECT * FROM run_traces WHERE run_id = r.id LIMIT 1) t
                WHERE r.session_id = $2 AND r.owner_id = $3 AND r.id < $1 ORDER BY r.id DESC LIMIT 1
                """,
                run_id,
                session_id,
                owner_id,
            )
        return record_or_none(RunTraceRecord, row)
