"""Tickets: each opens one socket, once, soon. Only their hashes are kept."""

from collections.abc import Sequence

from db.errors import DatabaseError
from db.ids import ApiKeyId, SessionId, SignInId, UserId
from db.pool import Database
from db.records import HeldRight
from db.stores.accepting import NoSuchSession
from db.stores.rows import record_or_none


class TooManyTickets(DatabaseError):
    """The user has as many unused tickets as one may have."""


class TicketStore:
    """The tickets that were given out and not used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        hash: bytes,
        owner_id: UserId,
        *,
        session_id: SessionId | None,
        sign_in_id: SignInId | None,
        api_key_id: ApiKeyId | None,
        scopes: Sequence[str],
        seconds: float,
        most: int,
    ) -> None:
        """Keep a ticket for one of the owner's sessions, or for many conversations if none is named.

        Raises `NoSuchSession`, and `TooManyTickets` if the owner has `most` of them, however many are asked for at
        once.
        """
        async with self._database.transaction() as connection:
            # Others who ask for the same user wait here, so that each counts the tickets of those before.
            await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", owner_id)
            await connection.execute(
                "DELETE FROM socket_tickets WHERE user_id = $1 AND expires_at < now()",
                owner_id,
            )
            open_tickets = await connection.fetchval(
                """
                SELECT (SELECT count(*) FROM socket_tickets WHERE user_id = $1)
                WHERE $2::uuid IS NULL OR EXISTS (SELECT FROM sessions WHERE id = $2 AND owner_id = $1)
                """,
                owner_id,
                session_id,
            )
            if open_tickets is None:
                raise NoSuchSession(str(session_id))
            if open_tickets >= most:
                raise TooManyTickets
            await connection.execute(
                """
                INSERT INTO socket_tickets (hash, user_id, session_id, sign_in_id, api_key_id, scopes, expires_at)
                VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
                """,
                hash,
                owner_id,
                session_id,
                sign_in_id,
                api_key_id,
                list(scopes),
                seconds,
            )

    async def take(self, hash: bytes, session_id: SessionId | None) -> HeldRight | None:
        """What the ticket with that hash allows, and to whom. It is gone now, whether it was good or not.

        None unless it is for that session (for many conversations if None), in time, and what it was got with is still
        good.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH taken AS (
                    DELETE FROM socket_tickets WHERE hash = $1 RETURNING *
                )
                SELECT t.user_id, t.scopes, u.is_admin, t.api_key_id IS NOT NULL AS is_key,
                       coalesce(t.sign_in_id, t.api_key_id) AS credential_id
                FROM taken t JOIN users u ON u.id = t.user_id
                WHERE t.expires_at > now() AND t.session_id IS NOT DISTINCT FROM $2::uuid AND u.disabled_at IS NULL
                  AND (EXISTS (SELECT FROM sign_ins s
                               WHERE s.id = t.sign_in_id AND s.revoked_at IS NULL AND s.expires_at > now())
                       OR EXISTS (SELECT FROM api_keys k
                                  WHERE k.id = t.api_key_id AND k.revoked_at IS NULL
                                    AND (k.expires_at IS NULL OR k.expires_at > now())))
                """,
                hash,
                session_id,
            )
        return record_or_none(HeldRight, row)

    async def sweep(self) -> None:
        """Throw away what nobody has used in time."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM socket_tickets WHERE expires_at < now()")
