"""Modules of an owner: the parts that prompts are made of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from db.errors import DatabaseError
from db.ids import ModuleId, UserId
from db.pool import Database
from db.records import ModuleRecord
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection


@dataclass(frozen=True, slots=True)
class ModuleUse:
    """What uses a module: a persona that names or attaches it, or another module that names it."""

    kind: Literal["persona", "module"]
    id: UUID
    name: str


class ModuleUsed(DatabaseError):
    """The module is not deleted, because of `uses`."""

    def __init__(self, uses: list[ModuleUse]) -> None:
        super().__init__(", ".join(use.name for use in uses))
        self.uses = uses


class ModuleStore:
    """Named parts of prompts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, module_id: ModuleId, owner_id: UserId, fields: Mapping[str, Any]) -> ModuleRecord:
        """Store a module; raises `DuplicateName`. `fields` are the record's own, those left out take defaults."""
        async with self._database.connection() as connection:
            return await insert_module(connection, module_id, owner_id, fields)

    async def get(self, module_id: ModuleId, owner_id: UserId) -> ModuleRecord | None:
        """The owner's module with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM modules WHERE id = $1 AND owner_id = $2", module_id, owner_id
            )
        return record_or_none(ModuleRecord, row)

    async def get_by_names(
        self, owner_id: UserId, names: Collection[str], *, ids: Collection[ModuleId] = ()
    ) -> list[ModuleRecord]:
        """The owner's modules that have one of those names or ids, active or not; each once, ordered by name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM modules WHERE owner_id = $1 AND name = ANY($2::text[])
                UNION ALL
                SELECT * FROM modules WHERE owner_id = $1 AND id = ANY($3::uuid[]) AND name <> ALL($2::text[])
                ORDER BY name
                """,
                owner_id,
                list(names),
                list(ids),
            )
        return records(ModuleRecord, rows)

    async def list(
        self,
        owner_id: UserId,
        *,
        type: str | None,
        execution_context: str | None,
        active: bool | None,
        q: str | None,
        before: ModuleId | None,
        limit: int,
    ) -> list[ModuleRecord]:
        """The owner's modules made before `before`, newest first; `q` is looked for in names and descriptions."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM modules
                WHERE owner_id = $1
                  AND ($2::text IS NULL OR type = $2)
                  AND ($3::text IS NULL OR execution_context = $3)
                  AND ($4::boolean IS NULL OR is_active = $4)
                  AND ($5::text IS NULL OR strpos(lower(name || ' ' || description), lower($5)) > 0)
                  AND ($6::uuid IS NULL OR id < $6)
                ORDER BY id DESC LIMIT $7
                """,
                owner_id,
                type,
                execution_context,
                active,
                q,
                before,
                limit,
            )
        return records(ModuleRecord, rows)

    async def update(
        self, module_id: ModuleId, owner_id: UserId, changes: Mapping[str, Any], *, version: int | None
    ) -> ModuleRecord | None:
        """Set the named fields; raises `DuplicateName`. None if there is no such module of that version."""
        async with self._database.connection() as connection:
            return await change_module(connection, module_id, owner_id, changes, version=version)

    async def delete(self, module_id: ModuleId, owner_id: UserId, *, version: int | None, force: bool = False) -> bool:
        """Delete the module with what it remembers; False if there is none of that version.

        Raises `ModuleUsed` if a persona or another module uses it, unless `force` is set: names then stay as text.
        """
        async with self._database.transaction() as connection:
            # Whoever attaches it at this moment waits, and then finds it gone.
            name = await connection.fetchval(
                """
                SELECT name FROM modules
                WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3) FOR UPDATE
                """,
                module_id,
                owner_id,
                version,
            )
            if name is None:
                return False
            if not force and (uses := await _uses(connection, module_id, owner_id, name)):
                raise ModuleUsed(uses)
            await connection.execute("DELETE FROM modules WHERE id = $1 AND owner_id = $2", module_id, owner_id)
        return True


async def insert_module(
    connection: "PooledConnection", module_id: ModuleId, owner_id: UserId, fields: Mapping[str, Any]
) -> ModuleRecord:
    """What `ModuleStore.create` does, within a transaction."""
    row = await connection.fetchrow(
        """
        INSERT INTO modules
            (id, owner_id, name, description, type, content, script, trigger_pattern, trigger_depth,
             execution_context, timeout_ms, is_active, requires_ai, analysis, refers_to)
        SELECT $1, $2, given ->> 'name', coalesce(given ->> 'description', ''),
               coalesce(given ->> 'type', 'simple'), coalesce(given ->> 'content', ''),
               coalesce(given ->> 'script', ''), given ->> 'trigger_pattern',
               coalesce((given ->> 'trigger_depth')::integer, 1),
               coalesce(given ->> 'execution_context', 'IMMEDIATE'), (given ->> 'timeout_ms')::integer,
               coalesce((given ->> 'is_active')::boolean, true),
               coalesce((given ->> 'requires_ai')::boolean, false), nullif(given -> 'analysis', 'null'),
               ARRAY(SELECT jsonb_array_elements_text(coalesce(given -> 'refers_to', '[]')))
        FROM (SELECT $3::jsonb) AS _ (given)
        RETURNING *
        """,
        module_id,
        owner_id,
        fields,
    )
    assert row is not None
    return record(ModuleRecord, row)


async def change_module(
    connection: "PooledConnection",
    module_id: ModuleId,
    owner_id: UserId,
    changes: Mapping[str, Any],
    *,
    version: int | None,
) -> ModuleRecord | None:
    """What `ModuleStore.update` does, within a transaction."""
    row = await connection.fetchrow(
        """
        UPDATE modules SET
            name = coalesce(given ->> 'name', name),
            description = coalesce(given ->> 'description', description),
            type = coalesce(given ->> 'type', type),
            content = coalesce(given ->> 'content', content),
            script = coalesce(given ->> 'script', script),
            trigger_pattern = CASE WHEN given ? 'trigger_pattern' THEN given ->> 'trigger_pattern'
                                   ELSE trigger_pattern END,
            trigger_depth = coalesce((given ->> 'trigger_depth')::integer, trigger_depth),
            execution_context = coalesce(given ->> 'execution_context', execution_context),
            timeout_ms = CASE WHEN given ? 'timeout_ms' THEN (given ->> 'timeout_ms')::integer
                              ELSE timeout_ms END,
            is_active = coalesce((given ->> 'is_active')::boolean, is_active),
            requires_ai = coalesce((given ->> 'requires_ai')::boolean, requires_ai),
            analysis = CASE WHEN given ? 'analysis' THEN nullif(given -> 'analysis', 'null')
                            ELSE analysis END,
            refers_to = CASE WHEN given ? 'refers_to'
                             THEN ARRAY(SELECT jsonb_array_elements_text(given -> 'refers_to'))
                             ELSE refers_to END,
            version = version + 1, updated_at = now()
        FROM (SELECT $4::jsonb) AS _ (given)
        WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
        RETURNING modules.*
        """,
        module_id,
        owner_id,
        version,
        changes,
    )
    return record_or_none(ModuleRecord, row)


async def _uses(connection: "PooledConnection", module_id: ModuleId, owner_id: UserId, name: str) -> list[ModuleUse]:
    rows = await connection.fetch(
        """
        SELECT 'persona' AS kind, id, name FROM personas WHERE owner_id = $2 AND refers_to @> ARRAY[$3::text]
        UNION
        SELECT 'persona', p.id, p.name FROM persona_modules a JOIN personas p ON p.id = a.persona_id
        WHERE a.module_id = $1 AND p.owner_id = $2
        UNION
        SELECT 'module', id, name FROM modules
        WHERE owner_id = $2 AND id <> $1 AND (refers_to @> ARRAY[$3::text] OR analysis -> 'references' ? $3)
        ORDER BY kind DESC, name
        """,
        module_id,
        owner_id,
        name,
    )
    return records(ModuleUse, rows)
