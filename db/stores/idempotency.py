"""Requests that may be sent twice, and what was answered to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from db.ids import ReplicaId, UserId
from db.pool import Database
from db.stores.rows import record_or_none

Reserved = Literal["reserved", "known", "full"]
"""Whether an attempt has its key now; else somebody has it already, or its owner has too many."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request with that key: without a `status` nobody knows how it ended; `is_alive` if it may still be running."""

    fingerprint: bytes
    status: int | None
    headers: Mapping[str, str] | None
    body: bytes | None
    is_alive: bool


class IdempotencyStore:
    """Keeps one row for each owner and key."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        """A replica that has not been seen for `lease_seconds` is taken for dead."""
        self._database = database
        self._lease = lease_seconds

    async def reserve(
        self,
        owner_id: UserId,
        key: str,
        *,
        fingerprint: bytes,
        attempt_id: UUID,
        replica_id: ReplicaId,
        keep_seconds: float,
        most: int,
    ) -> Reserved:
        """Take the owner's key for this attempt, unless somebody has it or the owner has `most` keys already."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH few AS (
                    SELECT count(*) < $7 AS has_room
                    FROM (SELECT FROM idempotent_requests WHERE owner_id = $1 LIMIT $7) AS theirs
                ), taken AS (
                    INSERT INTO idempotent_requests AS known
                        (owner_id, key, fingerprint, attempt_id, replica_id, expires_at)
                    SELECT $1, $2, $3, $4, $5, now() + make_interval(secs => $6) FROM few WHERE has_room
                    ON CONFLICT (owner_id, key) DO UPDATE SET
                        fingerprint = excluded.fingerprint, attempt_id = excluded.attempt_id,
                        replica_id = excluded.replica_id, status = NULL, headers = NULL, body = NULL,
                        created_at = now(), expires_at = excluded.expires_at
                    -- The same attempt once more: its first answer was lost.
                    WHERE known.expires_at <= now() OR known.attempt_id = excluded.attempt_id
                    RETURNING 1
                )
                SELECT CASE WHEN EXISTS (SELECT FROM taken) THEN 'reserved' WHEN has_room THEN 'known'
                    WHEN EXISTS (SELECT FROM idempotent_requests WHERE owner_id = $1 AND key = $2) THEN 'known'
                    ELSE 'full' END
                FROM few
                """,
                owner_id,
                key,
                fingerprint,
                attempt_id,
                replica_id,
                keep_seconds,
                most,
            )

    async def find(self, owner_id: UserId, key: str, *, patience: float) -> KnownRequest | None:
        """What is known of the owner's key; an attempt that began more than `patience` seconds ago runs no more."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT i.fingerprint, i.status, i.headers, i.body,
                    i.created_at > now() - make_interval(secs => $3) AND EXISTS (
                        SELECT FROM replicas r
                        WHERE r.id = i.replica_id AND r.seen_at > now() - make_interval(secs => $4)
                    ) AS is_alive
                FROM idempotent_requests i
                WHERE i.owner_id = $1 AND i.key = $2 AND i.expires_at > now()
                """,
                owner_id,
                key,
                patience,
                self._lease,
            )
        return record_or_none(KnownRequest, row)

    async def complete(
        self,
        owner_id: UserId,
        key: str,
        attempt_id: UUID,
        *,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> None:
        """Keep what this attempt was answered."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                UPDATE idempotent_requests SET status = $4, headers = $5, body = $6
                WHERE owner_id = $1 AND key = $2 AND attempt_id = $3
                """,
                owner_id,
                key,
                attempt_id,
                status,
                dict(headers),
                body,
            )

    async def forget(self, owner_id: UserId, key: str, attempt_id: UUID) -> None:
        """Give the key back: this attempt came to nothing."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM idempotent_requests WHERE owner_id = $1 AND key = $2 AND attempt_id = $3",
                owner_id,
                key,
                attempt_id,
            )

    async def prune(self, *, limit: int) -> int:
        """Throw away what is kept no longer, so many rows at most; returns how many."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH gone AS (
                    DELETE FROM idempotent_requests WHERE (owner_id, key) IN (
                        SELECT owner_id, key FROM idempotent_requests
                        WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
                    ) RETURNING 1
                )
                SELECT count(*) FROM gone
                """,
                limit,
            )
