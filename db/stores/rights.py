"""Which rights that are in use are no rights any more, and what was begun by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from db.ids import RunId, SessionId
from db.pool import Database
from db.stores.rows import records

RevokedKind = Literal["credential", "queued", "running", "waiting", "working"]
"""A sign-in or key; a run that waits or is performed; work after a reply that waits or is being done."""


@dataclass(frozen=True, slots=True)
class RevokedRecord:
    """Something whose right is gone. Of a credential only the id is known."""

    kind: RevokedKind
    id: UUID
    session_id: SessionId | None

    @property
    def run_id(self) -> RunId:
        """The run that it is about."""
        return RunId(self.id)


class RightsStore:
    """Looks whether rights still hold: signed out, revoked, expired, the user disabled or deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revoked(self, credential_ids: Sequence[UUID]) -> list[RevokedRecord]:
        """Those of the credentials that are good for nothing any more, and all unfinished work without a right to it.

        In a session what was asked for last comes first. What nobody showed anything for has a right as long as its
        user has one.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH unfinished AS (
                    SELECT state AS kind, id, session_id, owner_id, credential_id, first_seq
                    FROM runs WHERE state <> 'finished'
                    UNION ALL
                    SELECT p.state, r.id, r.session_id, r.owner_id, r.credential_id, r.first_seq
                    FROM post_responses p JOIN runs r ON r.id = p.run_id WHERE p.state <> 'done'
                ), asked AS (
                    SELECT 'credential' AS kind, c.id, NULL::uuid AS session_id, c.id AS credential_id,
                           false AS is_void, 0::bigint AS first_seq
                    FROM unnest($1::uuid[]) AS c (id)
                    UNION ALL
                    SELECT w.kind, w.id, w.session_id, w.credential_id, u.disabled_at IS NOT NULL, w.first_seq
                    FROM unfinished w JOIN users u ON u.id = w.owner_id
                )
                SELECT a.kind, a.id, a.session_id FROM asked a
                WHERE a.is_void OR a.credential_id IS NOT NULL
                  AND NOT EXISTS (SELECT FROM sign_ins s JOIN users u ON u.id = s.user_id
                                  WHERE s.id = a.credential_id AND s.revoked_at IS NULL AND s.expires_at > now()
                                    AND u.disabled_at IS NULL)
                  AND NOT EXISTS (SELECT FROM api_keys k JOIN users u ON u.id = k.user_id
                                  WHERE k.id = a.credential_id AND k.revoked_at IS NULL AND u.disabled_at IS NULL
                                    AND (k.expires_at IS NULL OR k.expires_at > now()))
                ORDER BY a.session_id, a.first_seq DESC
                """,
                list(credential_ids),
            )
        return records(RevokedRecord, rows)

    async def announce(self) -> None:
        """Tell every process to look now."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify('colloquy_revocations', '')")
