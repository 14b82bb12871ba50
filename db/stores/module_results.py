"""The newest result of each module in each session."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from db.ids import ModuleId, RunId, SessionId, UserId
from db.pool import Database
from db.records import ModuleResultRecord, ResultState
from db.stores.rows import records


@dataclass(frozen=True, slots=True)
class NewResult:
    """How a module's run ended. A failed one has neither text nor outputs."""

    module_id: ModuleId
    state: ResultState
    text: str = ""
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])


class ModuleResultStore:
    """Newest results of modules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, session_id: SessionId, owner_id: UserId, module_ids: Collection[ModuleId]
    ) -> dict[ModuleId, ModuleResultRecord]:
        """The newest result of each of those modules that has one in the session."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT r.* FROM module_results r JOIN sessions s ON s.id = r.session_id
                WHERE r.session_id = $1 AND s.owner_id = $2 AND r.module_id = ANY($3::uuid[])
                """,
                session_id,
                owner_id,
                list(module_ids),
            )
        return {found.module_id: found for found in records(ModuleResultRecord, rows)}

    async def put(self, run_id: RunId, owner_id: UserId, results: Collection[NewResult]) -> None:
        """Store what a run's modules gave, each once: again for the same run replaces, an earlier run never does.

        A failure keeps the last good text and outputs. What belongs to a run or module that is gone is dropped.
        """
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO module_results AS known (session_id, module_id, run_id, run_seq, state, text, outputs)
                SELECT r.session_id, m.id, r.id, r.first_seq, given ->> 'state', given ->> 'text', given -> 'outputs'
                FROM jsonb_array_elements($3::jsonb) AS given
                JOIN modules m ON m.id = (given ->> 'module_id')::uuid AND m.owner_id = $2
                JOIN runs r ON r.id = $1 AND r.owner_id = $2
                JOIN sessions s ON s.id = r.session_id
                ORDER BY m.id
                FOR KEY SHARE OF s, m
                ON CONFLICT (session_id, module_id) DO UPDATE SET
                    run_id = excluded.run_id, run_seq = excluded.run_seq, state = excluded.state, created_at = now(),
                    text = CASE excluded.state WHEN 'failed' THEN known.text ELSE excluded.text END,
                    outputs = CASE excluded.state WHEN 'failed' THEN known.outputs ELSE excluded.outputs END
                WHERE known.run_seq <= excluded.run_seq
                """,
                run_id,
                owner_id,
                list(results),
            )
