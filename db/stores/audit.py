"""The audit log: added to, read, and swept of what is old; never changed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from db.ids import UserId
from db.pool import Database
from db.records import AuditRecord
from db.stores.rows import records


class AuditStore:
    """Entries of all users, and of nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        entry_id: UUID,
        *,
        user_id: UserId | None,
        credential_kind: str | None,
        credential_id: UUID | None,
        action: str,
        subject_kind: str,
        subject_id: str | None,
        outcome: str,
        address: str | None,
        request_id: str | None,
        details: Mapping[str, Any],
    ) -> None:
        """Keep one entry."""
        async with self._database.connection() as connection:
            await connection.execute(
                """
                INSERT INTO audit_log (id, user_id, credential_kind, credential_id, action, subject_kind, subject_id,
                                       outcome, address, request_id, details)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                """,
                entry_id,
                user_id,
                credential_kind,
                credential_id,
                action,
                subject_kind,
                subject_id,
                outcome,
                address,
                request_id,
                details,
            )

    async def newest(
        self,
        *,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> list[AuditRecord]:
        """Entries of everybody, newest first: from `since` on, earlier than `until`, older than the entry `before`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM audit_log
                WHERE ($1::text IS NULL OR action = $1)
                  AND ($2::timestamptz IS NULL OR at >= $2) AND ($3::timestamptz IS NULL OR at < $3)
                  AND ($4::uuid IS NULL OR id < $4)
                ORDER BY id DESC LIMIT $5
                """,
                action,
                since,
                until,
                before,
                limit,
            )
        return records(AuditRecord, rows)

    async def newest_of(
        self,
        user_id: UserId,
        *,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> list[AuditRecord]:
        """The same of what one user did."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM audit_log
                WHERE user_id = $1 AND ($2::text IS NULL OR action = $2)
                  AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
                  AND ($5::uuid IS NULL OR id < $5)
                ORDER BY id DESC LIMIT $6
                """,
                user_id,
                action,
                since,
                until,
                before,
                limit,
            )
        return records(AuditRecord, rows)

    async def sweep(self, *, older_than_days: int, most: int) -> int:
        """Take out entries that are older than that, at most so many; returns how many there were."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT sweep_audit_log($1, $2)", older_than_days, most)
