"""API keys: what programs show in place of a sign-in. Only their hashes are kept."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from db.errors import DatabaseError
from db.ids import ApiKeyId, UserId
from db.pool import Database
from db.records import ApiKeyRecord, HeldRight
from db.stores.rows import record, records


class TooManyKeys(DatabaseError):
    """The user has as many keys as one may have."""


class ApiKeyStore:
    """The keys of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        key_id: ApiKeyId,
        owner_id: UserId,
        *,
        name: str,
        hash: bytes,
        last_four: str,
        scopes: Sequence[str],
        expires_at: datetime | None,
        most: int,
    ) -> ApiKeyRecord:
        """Keep a key. Raises `TooManyKeys` if the owner has `most` of them already, however many are made at once."""
        async with self._database.transaction() as connection:
            # Others who make a key for the same user wait here, so that each counts the keys of those before.
            await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", owner_id)
            row = await connection.fetchrow(
                """
                INSERT INTO api_keys (id, user_id, name, hash, last_four, scopes, expires_at)
                SELECT $1, $2, $3, $4, $5, $6, $7
                WHERE (SELECT count(*) FROM api_keys WHERE user_id = $2 AND revoked_at IS NULL) < $8
                RETURNING *
                """,
                key_id,
                owner_id,
                name,
                hash,
                last_four,
                list(scopes),
                expires_at,
                most,
            )
        if row is None:
            raise TooManyKeys
        return record(ApiKeyRecord, row)

    async def page(self, owner_id: UserId, *, before: ApiKeyId | None, limit: int) -> list[ApiKeyRecord]:
        """The owner's keys, newest first, those made before `before`; not those that were revoked."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM api_keys
                WHERE user_id = $1 AND revoked_at IS NULL AND ($2::uuid IS NULL OR id < $2)
                ORDER BY id DESC LIMIT $3
                """,
                owner_id,
                before,
                limit,
            )
        return records(ApiKeyRecord, rows)

    async def remove(self, key_id: ApiKeyId, owner_id: UserId) -> bool:
        """Take a key away, with the tickets that it got; False if the owner has no such key."""
        async with self._database.connection() as connection:
            removed: UUID | None = await connection.fetchval(
                "DELETE FROM api_keys WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING id",
                key_id,
                owner_id,
            )
        return removed is not None

    async def use(self, hash: bytes, *, note_after_seconds: float) -> tuple[HeldRight, bool] | None:
        """What the key with that hash allows, and whether this is its first use of the day (in UTC).

        None if it is revoked, has expired, or its user is disabled. That it was used is noted unless that was done in
        the last `note_after_seconds`.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH found AS (
                    SELECT k.id AS credential_id, k.user_id, k.scopes, u.is_admin,
                           coalesce((k.last_used_at AT TIME ZONE 'UTC')::date, '-infinity')
                               < (now() AT TIME ZONE 'UTC')::date AS is_first_today
                    FROM api_keys k JOIN users u ON u.id = k.user_id
                    WHERE k.hash = $1 AND k.revoked_at IS NULL AND u.disabled_at IS NULL
                      AND (k.expires_at IS NULL OR k.expires_at > now())
                ), noted AS (
                    UPDATE api_keys k SET last_used_at = now() FROM found
                    WHERE k.id = found.credential_id
                      AND (k.last_used_at IS NULL OR k.last_used_at < now() - make_interval(secs => $2))
                )
                SELECT *, true AS is_key FROM found
                """,
                hash,
                note_after_seconds,
            )
        return None if row is None else (record(HeldRight, row), row["is_first_today"])
