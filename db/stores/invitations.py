"""Invitations: who may register although registration is not open."""

from datetime import timedelta

from db.ids import InvitationId, UserId
from db.pool import Database
from db.records import InvitationRecord
from db.stores.rows import record, records


class InvitationStore:
    """The invitations of all administrators. What is stored of a code is its hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, invitation_id: InvitationId, created_by: UserId, *, hash: bytes, email: str | None, lasts: timedelta
    ) -> InvitationRecord:
        """Store an invitation; with an e-mail only who has that address may use it."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO invitations (id, hash, email, created_by, expires_at)
                VALUES ($1, $2, $3, $4, now() + $5::interval) RETURNING *
                """,
                invitation_id,
                hash,
                email,
                created_by,
                lasts,
            )
        assert row is not None
        return record(InvitationRecord, row)

    async def list(self, *, before: InvitationId | None, limit: int) -> list[InvitationRecord]:
        """Invitations made before `before`, newest first, used and old ones among them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM invitations WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2",
                before,
                limit,
            )
        return records(InvitationRecord, rows)

    async def delete(self, invitation_id: InvitationId) -> bool:
        """Take an invitation back, or forget one that was used; False if there is none."""
        async with self._database.connection() as connection:
            deleted = await connection.fetchval("DELETE FROM invitations WHERE id = $1 RETURNING true", invitation_id)
        return bool(deleted)
