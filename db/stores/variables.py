"""What scripts remember of a session: one JSON value per module and name."""

from collections.abc import Collection, Mapping
from typing import Any

from db.ids import ModuleId, SessionId, UserId
from db.pool import Database

Variables = Mapping[ModuleId, Mapping[str, Any]]


class VariableStore:
    """Variables of modules in sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, session_id: SessionId, owner_id: UserId, module_ids: Collection[ModuleId]
    ) -> dict[ModuleId, dict[str, Any]]:
        """All variables of those modules in the session; modules that have none are not in it."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT v.module_id, jsonb_object_agg(v.name, v.value) AS variables
                FROM module_variables v JOIN sessions s ON s.id = v.session_id
                WHERE v.session_id = $1 AND s.owner_id = $2 AND v.module_id = ANY($3::uuid[])
                GROUP BY v.module_id
                """,
                session_id,
                owner_id,
                list(module_ids),
            )
        return {ModuleId(row["module_id"]): row["variables"] for row in rows}

    async def set(self, session_id: SessionId, owner_id: UserId, values: Variables) -> None:
        """Set those variables and leave the others; what belongs to a session or module that is gone is dropped."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO module_variables (session_id, module_id, name, value)
                SELECT s.id, m.id, variable.key, variable.value
                FROM jsonb_each($3::jsonb) AS given
                JOIN modules m ON m.id = given.key::uuid AND m.owner_id = $2
                JOIN sessions s ON s.id = $1 AND s.owner_id = $2
                CROSS JOIN LATERAL jsonb_each(given.value) AS variable
                ORDER BY m.id, variable.key
                FOR KEY SHARE OF s, m
                ON CONFLICT (session_id, module_id, name) DO UPDATE SET value = excluded.value
                """,
                session_id,
                owner_id,
                {str(module_id): dict(variables) for module_id, variables in values.items()},
            )
