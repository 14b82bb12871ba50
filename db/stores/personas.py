"""Personas of an owner."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from db.errors import DatabaseError
from db.ids import PersonaId, UserId
from db.pool import Database
from db.records import PersonaRecord
from db.stores.rows import record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection


class NoSuchModule(DatabaseError):
    """The owner does not have all of the modules that are to be attached."""


class PersonaStore:
    """Named prompt templates with their model settings and attached modules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, persona_id: PersonaId, owner_id: UserId, fields: Mapping[str, Any]) -> PersonaRecord:
        """Store a persona. `fields` are the record's own, those left out take defaults.

        Raises `DuplicateName`, `NoSuchModule`.
        """
        async with self._database.transaction() as connection:
            return await insert_persona(connection, persona_id, owner_id, fields)

    async def get(self, persona_id: PersonaId, owner_id: UserId) -> PersonaRecord | None:
        """The owner's persona with that id."""
        async with self._database.connection() as connection:
            return await _read(connection, persona_id, owner_id)

    async def get_default(self, owner_id: UserId) -> PersonaRecord | None:
        """The persona that answers where the owner chose none, if there is one."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT p.*, true AS is_default,
                       ARRAY(SELECT module_id FROM persona_modules WHERE persona_id = p.id ORDER BY position)
                           AS module_ids
                FROM users u JOIN personas p ON p.id = u.default_persona_id AND p.owner_id = u.id
                WHERE u.id = $1
                """,
                owner_id,
            )
        return record_or_none(PersonaRecord, row)

    async def list(
        self,
        owner_id: UserId,
        *,
        mode: str | None,
        active: bool | None,
        q: str | None,
        before: PersonaId | None,
        limit: int,
    ) -> list[PersonaRecord]:
        """The owner's personas made before `before`, newest first; `q` is looked for in names and descriptions."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT p.*, coalesce(u.default_persona_id = p.id, false) AS is_default,
                       ARRAY(SELECT module_id FROM persona_modules WHERE persona_id = p.id ORDER BY position)
                           AS module_ids
                FROM personas p JOIN users u ON u.id = p.owner_id
                WHERE p.owner_id = $1
                  AND ($2::text IS NULL OR p.mode = $2)
                  AND ($3::boolean IS NULL OR p.is_active = $3)
                  AND ($4::text IS NULL OR strpos(lower(p.name || ' ' || p.description), lower($4)) > 0)
                  AND ($5::uuid IS NULL OR p.id < $5)
                ORDER BY p.id DESC LIMIT $6
                """,
                owner_id,
                mode,
                active,
                q,
                before,
                limit,
            )
        return records(PersonaRecord, rows)

    async def update(
        self, persona_id: PersonaId, owner_id: UserId, changes: Mapping[str, Any], *, version: int | None
    ) -> PersonaRecord | None:
        """Set the named fields; None if there is no such persona of that version.

        Raises `DuplicateName`, `NoSuchModule`.
        """
        async with self._database.transaction() as connection:
            return await change_persona(connection, persona_id, owner_id, changes, version=version)

    async def delete(self, persona_id: PersonaId, owner_id: UserId, *, version: int | None) -> bool:
        """Delete the persona; its sessions stay, without one. False if there is none of that version."""
        async with self._database.connection() as connection:
            deleted = await connection.fetchval(
                """
                DELETE FROM personas WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
                RETURNING true
                """,
                persona_id,
                owner_id,
                version,
            )
        return bool(deleted)


async def insert_persona(
    connection: "PooledConnection", persona_id: PersonaId, owner_id: UserId, fields: Mapping[str, Any]
) -> PersonaRecord:
    """What `PersonaStore.create` does, within a transaction."""
    await connection.execute(
        """
        INSERT INTO personas
            (id, owner_id, name, slug, description, template, mode, schedule, first_message, image,
             connection, model, controls, tools, refers_to, is_active)
        SELECT $1, $2, given ->> 'name', given ->> 'slug', coalesce(given ->> 'description', ''),
               coalesce(given ->> 'template', ''), coalesce(given ->> 'mode', 'reactive'),
               nullif(given -> 'schedule', 'null'), given ->> 'first_message', given ->> 'image',
               given ->> 'connection', given ->> 'model', coalesce(given -> 'controls', '{}'),
               coalesce(given -> 'tools', '{}'),
               ARRAY(SELECT jsonb_array_elements_text(coalesce(given -> 'refers_to', '[]'))),
               coalesce((given ->> 'is_active')::boolean, true)
        FROM (SELECT $3::jsonb) AS _ (given)
        """,
        persona_id,
        owner_id,
        fields,
    )
    await _set_relations(connection, persona_id, owner_id, fields)
    persona = await _read(connection, persona_id, owner_id)
    assert persona is not None
    return persona


async def change_persona(
    connection: "PooledConnection",
    persona_id: PersonaId,
    owner_id: UserId,
    changes: Mapping[str, Any],
    *,
    version: int | None,
) -> PersonaRecord | None:
    """What `PersonaStore.update` does, within a transaction."""
    updated = await connection.fetchval(
        """
        UPDATE personas SET
            name = coalesce(given ->> 'name', name),
            slug = coalesce(given ->> 'slug', slug),
            description = coalesce(given ->> 'description', description),
            template = coalesce(given ->> 'template', template),
            mode = coalesce(given ->> 'mode', mode),
            schedule = CASE WHEN given ? 'schedule' THEN nullif(given -> 'schedule', 'null')
                            ELSE schedule END,
            first_message = CASE WHEN given ? 'first_message' THEN given ->> 'first_message'
                                 ELSE first_message END,
            image = CASE WHEN given ? 'image' THEN given ->> 'image' ELSE image END,
            connection = CASE WHEN given ? 'connection' THEN given ->> 'connection' ELSE connection END,
            model = CASE WHEN given ? 'model' THEN given ->> 'model' ELSE model END,
            controls = coalesce(given -> 'controls', controls),
            tools = coalesce(given -> 'tools', tools),
            refers_to = CASE WHEN given ? 'refers_to'
                             THEN ARRAY(SELECT jsonb_array_elements_text(given -> 'refers_to'))
                             ELSE refers_to END,
            is_active = coalesce((given ->> 'is_active')::boolean, is_active),
            version = version + 1, updated_at = now()
        FROM (SELECT $4::jsonb) AS _ (given)
        WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
        RETURNING true
        """,
        persona_id,
        owner_id,
        version,
        changes,
    )
    if not updated:
        return None
    await _set_relations(connection, persona_id, owner_id, changes)
    return await _read(connection, persona_id, owner_id)


async def _set_relations(
    connection: "PooledConnection", persona_id: PersonaId, owner_id: UserId, fields: Mapping[str, Any]
) -> None:
    """What stands in other tables: the modules attached, and being the owner's default."""
    if "module_ids" in fields:
        await _attach(connection, persona_id, owner_id, fields)
    if "is_default" in fields:
        await connection.execute(
            """
            UPDATE users SET default_persona_id = CASE WHEN $3::boolean THEN $1::uuid END
            WHERE id = $2 AND ($3 OR default_persona_id = $1)
            """,
            persona_id,
            owner_id,
            fields["is_default"],
        )


async def _attach(
    connection: "PooledConnection", persona_id: PersonaId, owner_id: UserId, fields: Mapping[str, Any]
) -> None:
    module_ids = fields["module_ids"]
    await connection.execute("DELETE FROM persona_modules WHERE persona_id = $1", persona_id)
    attached = await connection.fetch(
        """
        INSERT INTO persona_modules (persona_id, module_id, position)
        SELECT $1, m.id, array_position($3::uuid[], m.id) FROM modules m
        WHERE m.owner_id = $2 AND m.id = ANY($3::uuid[])
        ORDER BY m.id FOR KEY SHARE
        RETURNING true
        """,
        persona_id,
        owner_id,
        module_ids,
    )
    if len(attached) != len(set(module_ids)):
        raise NoSuchModule


async def _read(connection: "PooledConnection", persona_id: PersonaId, owner_id: UserId) -> PersonaRecord | None:
    row = await connection.fetchrow(
        """
        SELECT p.*, coalesce(u.default_persona_id = p.id, false) AS is_default,
               ARRAY(SELECT module_id FROM persona_modules WHERE persona_id = p.id ORDER BY position) AS module_ids
        FROM personas p JOIN users u ON u.id = p.owner_id
        WHERE p.id = $1 AND p.owner_id = $2
        """,
        persona_id,
        owner_id,
    )
    return record_or_none(PersonaRecord, row)
