"""Personas of an owner."""

from collections.abc import Mapping
from typing import Any

from db.ids import PersonaId, UserId
from db.pool import Database
from db.records import PersonaRecord
from db.stores.rows import record, record_or_none, records


class PersonaStore:
    """Named prompt templates with their model settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, persona_id: PersonaId, owner_id: UserId, fields: Mapping[str, Any]) -> PersonaRecord:
        """Store a persona; raises `DuplicateName`. `fields` are the record's own, those left out take defaults."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO personas
                    (id, owner_id, name, slug, description, template, mode, first_message, connection, model,
                     controls, is_active)
                SELECT $1, $2, given ->> 'name', given ->> 'slug', coalesce(given ->> 'description', ''),
                       coalesce(given ->> 'template', ''), coalesce(given ->> 'mode', 'reactive'),
                       given ->> 'first_message', given ->> 'connection', given ->> 'model',
                       coalesce(given -> 'controls', '{}'), coalesce((given ->> 'is_active')::boolean, true)
                FROM (SELECT $3::jsonb) AS _ (given)
                RETURNING *
                """,
                persona_id,
                owner_id,
                fields,
            )
        assert row is not None
        return record(PersonaRecord, row)

    async def get(self, persona_id: PersonaId, owner_id: UserId) -> PersonaRecord | None:
        """The owner's persona with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM personas WHERE id = $1 AND owner_id = $2", persona_id, owner_id
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
                SELECT * FROM personas
                WHERE owner_id = $1
                  AND ($2::text IS NULL OR mode = $2)
                  AND ($3::boolean IS NULL OR is_active = $3)
                  AND ($4::text IS NULL OR strpos(lower(name || ' ' || description), lower($4)) > 0)
                  AND ($5::uuid IS NULL OR id < $5)
                ORDER BY id DESC LIMIT $6
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
        """Set the named fields; raises `DuplicateName`. None if there is no such persona of that version."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE personas SET
                    name = coalesce(given ->> 'name', name),
                    slug = coalesce(given ->> 'slug', slug),
                    description = coalesce(given ->> 'description', description),
                    template = coalesce(given ->> 'template', template),
                    mode = coalesce(given ->> 'mode', mode),
                    first_message = CASE WHEN given ? 'first_message' THEN given ->> 'first_message'
                                         ELSE first_message END,
                    connection = CASE WHEN given ? 'connection' THEN given ->> 'connection' ELSE connection END,
                    model = CASE WHEN given ? 'model' THEN given ->> 'model' ELSE model END,
                    controls = coalesce(given -> 'controls', controls),
                    is_active = coalesce((given ->> 'is_active')::boolean, is_active),
                    version = version + 1, updated_at = now()
                FROM (SELECT $4::jsonb) AS _ (given)
                WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
                RETURNING personas.*
                """,
                persona_id,
                owner_id,
                version,
                changes,
            )
        return record_or_none(PersonaRecord, row)

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
