"""Connections to model servers that users saved."""

from collections.abc import Sequence
from uuid import UUID

from db.errors import DatabaseError
from db.ids import ConnectionId, UserId
from db.pool import Database
from db.records import ConnectionRecord
from db.stores.rows import record_or_none, records


class TooManyConnections(DatabaseError):
    """The owner has saved as many connections as one may."""


class ConnectionStore:
    """Addresses and sealed keys of model servers, each of one owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: ConnectionRecord, *, most: int) -> ConnectionRecord:
        """Store a connection; its times are the database's. Raises `DuplicateName`, `TooManyConnections`."""
        async with self._database.transaction() as connection:
            saved = await connection.fetchval(
                """
                WITH owner AS (SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE)
                SELECT count(c.id) FROM owner LEFT JOIN provider_connections c ON c.owner_id = owner.id
                """,
                new.owner_id,
            )
            if saved >= most:
                raise TooManyConnections(str(saved))
            row = await connection.fetchrow(
                """
                INSERT INTO provider_connections
                    (id, owner_id, name, kind, base_url, api_version, deployment, default_model, num_ctx, api,
                     is_active, sealed_key, key_id, last_four)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                RETURNING *
                """,
                new.id,
                new.owner_id,
                new.name,
                new.kind,
                new.base_url,
                new.api_version,
                new.deployment,
                new.default_model,
                new.num_ctx,
                new.api,
                new.is_active,
                new.sealed_key,
                new.key_id,
                new.last_four,
            )
        created = record_or_none(ConnectionRecord, row)
        assert created is not None
        return created

    async def get(self, connection_id: ConnectionId, owner_id: UserId) -> ConnectionRecord | None:
        """The owner's connection with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT * FROM provider_connections WHERE id = $1 AND owner_id = $2
                """,
                connection_id,
                owner_id,
            )
        return record_or_none(ConnectionRecord, row)

    async def named(self, name: str, owner_id: UserId) -> ConnectionRecord | None:
        """The owner's connection of that name; else the one that was called so before."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT * FROM provider_connections
                WHERE owner_id = $2 AND (name = $1 OR $1 = ANY(former_names))
                ORDER BY name = $1 DESC, updated_at DESC LIMIT 1
                """,
                name,
                owner_id,
            )
        return record_or_none(ConnectionRecord, row)

    async def list(self, owner_id: UserId, *, before: UUID | None, limit: int) -> list[ConnectionRecord]:
        """The owner's connections saved before `before`, newest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM provider_connections
                WHERE owner_id = $1 AND ($2::uuid IS NULL OR id < $2)
                ORDER BY id DESC LIMIT $3
                """,
                owner_id,
                before,
                limit,
            )
        return records(ConnectionRecord, rows)

    async def replace(self, changed: ConnectionRecord) -> ConnectionRecord | None:
        """Write all of `changed` over its own version; None if it is of another by now. Raises `DuplicateName`."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE provider_connections SET
                    name = $4, former_names = $5, kind = $6, base_url = $7, api_version = $8, deployment = $9,
                    default_model = $10, num_ctx = $11, api = $12, is_active = $13,
                    sealed_key = $14, key_id = $15, last_four = $16,
                    version = version + 1, updated_at = now()
                WHERE id = $1 AND owner_id = $2 AND version = $3
                RETURNING *
                """,
                changed.id,
                changed.owner_id,
                changed.version,
                changed.name,
                changed.former_names,
                changed.kind,
                changed.base_url,
                changed.api_version,
                changed.deployment,
                changed.default_model,
                changed.num_ctx,
                changed.api,
                changed.is_active,
                changed.sealed_key,
                changed.key_id,
                changed.last_four,
            )
        return record_or_none(ConnectionRecord, row)

    async def delete(self, connection_id: ConnectionId, owner_id: UserId, *, version: int | None) -> bool:
        """Delete the connection and its key. False if there is none of that version."""
        async with self._database.connection() as connection:
            deleted = await connection.fetchval(
                """
                DELETE FROM provider_connections
                WHERE id = $1 AND owner_id = $2 AND ($3::bigint IS NULL OR version = $3)
                RETURNING true
                """,
                connection_id,
                owner_id,
                version,
            )
        return bool(deleted)

    async def sealed_otherwise(
        self, key_id: str, *, after: ConnectionId | None, limit: int
    ) -> Sequence[ConnectionRecord]:
        """Connections of everybody whose keys are sealed under another key of the ring, by id from `after` on."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM provider_connections
                WHERE key_id <> $1 AND ($2::uuid IS NULL OR id > $2)
                ORDER BY id LIMIT $3
                """,
                key_id,
                after,
                limit,
            )
        return records(ConnectionRecord, rows)

    async def reseal(self, sealed: ConnectionRecord, sealed_key: bytes, key_id: str) -> bool:
        """Put the same key there as it is sealed now; False if somebody has put another one there since.

        Nothing of the connection changes by that, so neither does its version.
        """
        async with self._database.connection() as connection:
            done = await connection.fetchval(
                """
                UPDATE provider_connections SET sealed_key = $4, key_id = $5
                WHERE id = $1 AND owner_id = $2 AND sealed_key = $3
                RETURNING true
                """,
                sealed.id,
                sealed.owner_id,
                sealed.sealed_key,
                sealed_key,
                key_id,
            )
        return bool(done)
