"""Users: who owns what, and how they are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import DatabaseError, DuplicateName
from db.ids import LOCAL_OWNER, SessionId, SignInId, UserId
from db.pool import Database
from db.records import UserRecord
from db.stores.leases import lock_journal
from db.stores.rows import record, record_or_none, records
from db.stores.sign_ins import end_all

if TYPE_CHECKING:
    from db.pool import PooledConnection


class EmailTaken(DatabaseError):
    """Another account has that address."""


class InvitationRefused(DatabaseError):
    """There is no such invitation that this person could still use."""


class NotTheFirst(DatabaseError):
    """Somebody else has become the first account in the meantime."""


class LastAdministrator(DatabaseError):
    """Nobody would be left to look after the service."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """Somebody who registers. The id is used unless they take over what was made without accounts."""

    id: UserId
    email: str
    password_hash: str
    display_name: str


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """Whose it is, and what was made of it."""

    user_id: UserId
    hash: str
    is_disabled: bool


class UserStore:
    """The owners of everything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, user_id: UserId, display_name: str) -> None:
        """Make sure that this user exists."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO users (id, display_name) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
                user_id,
                display_name,
            )

    async def get(self, user_id: UserId) -> UserRecord | None:
        """The user with that id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow("SELECT * FROM users WHERE id = $1", user_id)
        return record_or_none(UserRecord, row)

    async def list(self, *, q: str | None, before: UserId | None, limit: int) -> list[UserRecord]:
        """Accounts made before `before`, newest first; `q` is looked for in addresses and names."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM users
                WHERE email IS NOT NULL AND ($1::uuid IS NULL OR id < $1)
                  AND ($2::text IS NULL OR strpos(lower(email || ' ' || display_name), lower($2)) > 0)
                ORDER BY id DESC LIMIT $3
                """,
                before,
                q,
                limit,
            )
        return records(UserRecord, rows)

    async def needs_first(self) -> bool:
        """Whether nobody has an account yet."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT NOT EXISTS (SELECT FROM users WHERE email IS NOT NULL)")

    async def has_local_owner(self) -> bool:
        """Whether the service was used without accounts, and nobody has taken that over."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                "SELECT EXISTS (SELECT FROM users WHERE id = $1 AND email IS NULL)", LOCAL_OWNER
            )

    async def is_invited(self, invitation_hash: bytes, email: str) -> bool:
        """Whether there is an invitation that the one with that address could still use."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                SELECT EXISTS (
                    SELECT FROM invitations
                    WHERE hash = $1 AND used_at IS NULL AND expires_at > now() AND (email IS NULL OR email = $2)
                )
                """,
                invitation_hash,
                email,
            )

    async def register_first(self, new: NewAccount) -> UserRecord:
        """Make the administrator, who takes over what was made without accounts. Raises `NotTheFirst`."""
        async with self._database.transaction() as connection:
            # Two who register at once come one after the other: only one of them finds nobody here.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('colloquy: the first account'))")
            if await connection.fetchval("SELECT EXISTS (SELECT FROM users WHERE email IS NOT NULL)"):
                raise NotTheFirst
            row = await connection.fetchrow(
                """
                WITH owner AS (
                    UPDATE users SET email = $2, password_hash = $3, display_name = $4, is_admin = true,
                                     updated_at = now()
                    WHERE id = $5 RETURNING *
                ), made AS (
                    INSERT INTO users (id, email, password_hash, display_name, is_admin)
                    SELECT $1, $2, $3, $4, true WHERE NOT EXISTS (SELECT FROM owner) RETURNING *
                )
                SELECT * FROM owner UNION ALL SELECT * FROM made
                """,
                new.id,
                new.email,
                new.password_hash,
                new.display_name,
                LOCAL_OWNER,
            )
            assert row is not None
        return record(UserRecord, row)

    async def register(self, new: NewAccount, *, invitation_hash: bytes | None) -> UserRecord:
        """Make an account, and use the invitation up if there is one. Raises `EmailTaken`, `InvitationRefused`."""
        try:
            async with self._database.transaction() as connection:
                row = await connection.fetchrow(
                    """
                    INSERT INTO users (id, email, password_hash, display_name) VALUES ($1, $2, $3, $4) RETURNING *
                    """,
                    new.id,
                    new.email,
                    new.password_hash,
                    new.display_name,
                )
                assert row is not None
                if invitation_hash is not None:
                    used = await connection.fetchval(
                        """
                        UPDATE invitations SET used_by = $2, used_at = now()
                        WHERE hash = $1 AND used_at IS NULL AND expires_at > now() AND (email IS NULL OR email = $3)
                        RETURNING true
                        """,
                        invitation_hash,
                        new.id,
                        new.email,
                    )
                    if not used:
                        raise InvitationRefused
        except DuplicateName as error:
            raise EmailTaken from error
        return record(UserRecord, row)

    async def password_of(self, email: str) -> StoredPassword | None:
        """What is stored of the password of the account with that address."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT id AS user_id, password_hash AS hash, disabled_at IS NOT NULL AS is_disabled FROM users
                WHERE email = $1 AND password_hash IS NOT NULL
                """,
                email,
            )
        return record_or_none(StoredPassword, row)

    async def hash_of(self, user_id: UserId) -> str | None:
        """What is stored of the user's password."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT password_hash FROM users WHERE id = $1", user_id)

    async def change_password(self, user_id: UserId, *, old: str, new: str, but: SignInId | None) -> bool:
        """Store another password and end the user's sign-ins but for one; False if `old` is not the present one."""
        async with self._database.transaction() as connection:
            changed = await connection.fetchval(
                """
                UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2
                RETURNING true
                """,
                user_id,
                old,
                new,
            )
            if changed:
                await end_all(connection, user_id, "password", but=but)
        return bool(changed)

    async def replace_hash(self, user_id: UserId, *, old: str, new: str) -> bool:
        """Store another hash; False if it is not `old` any more that stands there."""
        async with self._database.connection() as connection:
            replaced = await connection.fetchval(
                """
                UPDATE users SET password_hash = $3, updated_at = now() WHERE id = $1 AND password_hash = $2
                RETURNING true
                """,
                user_id,
                old,
                new,
            )
        return bool(replaced)

    async def update(self, user_id: UserId, changes: Mapping[str, Any]) -> UserRecord | None:
        """Set `display_name` and `timezone` where they are among the changes."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE users SET
                    display_name = CASE WHEN given ? 'display_name' THEN given ->> 'display_name'
                                        ELSE display_name END,
                    timezone = CASE WHEN given ? 'timezone' THEN given ->> 'timezone' ELSE timezone END,
                    updated_at = now()
                FROM (SELECT $2::jsonb) AS _ (given)
                WHERE id = $1 RETURNING users.*
                """,
                user_id,
                changes,
            )
        return record_or_none(UserRecord, row)

    async def govern(self, user_id: UserId, *, is_admin: bool | None, is_disabled: bool | None) -> UserRecord | None:
        """Say what an account may do, None leaves it; who is disabled loses all sign-ins.

        Raises `LastAdministrator`, and changes nothing, if no administrator were left.
        """
        async with self._database.transaction() as connection:
            await _lock_administrators(connection)
            row = await connection.fetchrow(
                """
                UPDATE users SET
                    is_admin = coalesce($2, is_admin),
                    disabled_at = CASE WHEN $3 THEN coalesce(disabled_at, now()) WHEN NOT $3 THEN NULL
                                       ELSE disabled_at END,
                    updated_at = now()
                WHERE id = $1 AND email IS NOT NULL RETURNING *
                """,
                user_id,
                is_admin,
                is_disabled,
            )
            if row is not None:
                await _check_administrators(connection)
            if is_disabled:
                await end_all(connection, user_id, "disabled")
        return record_or_none(UserRecord, row)

    async def reset_password(self, user_id: UserId, new: str) -> bool:
        """Store another password and end all sign-ins; False if there is no such account."""
        async with self._database.transaction() as connection:
            changed = await connection.fetchval(
                """
                UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1 AND email IS NOT NULL
                RETURNING true
                """,
                user_id,
                new,
            )
            await end_all(connection, user_id, "password")
        return bool(changed)

    async def delete(self, user_id: UserId) -> bool:
        """Delete an account with all that belongs to it; False if there is none. Raises `LastAdministrator`.

        To be called when the user is disabled: what fails half way can be done again.
        """
        await self._delete_sessions(user_id)
        async with self._database.transaction() as connection:
            await _lock_administrators(connection)
            deleted = await connection.fetchval(
                "DELETE FROM users WHERE id = $1 AND email IS NOT NULL RETURNING true", user_id
            )
            if deleted:
                await _check_administrators(connection)
        return bool(deleted)

    async def _delete_sessions(self, user_id: UserId) -> None:
        """Delete the sessions one by one: whoever writes to several at once must not wait for us while we wait too."""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    """
                    SELECT s.id FROM sessions s JOIN users u ON u.id = s.owner_id
                    WHERE u.id = $1 AND u.email IS NOT NULL ORDER BY s.id LIMIT 100
                    """,
                    user_id,
                )
            if not rows:
                return
            for row in rows:
                await self._delete_session(SessionId(row["id"]), user_id)

    async def _delete_session(self, session_id: SessionId, user_id: UserId) -> None:
        async with self._database.transaction() as connection:
            await lock_journal(connection, session_id)
            await connection.execute("DELETE FROM sessions WHERE id = $1 AND owner_id = $2", session_id, user_id)
            await connection.execute("DELETE FROM events WHERE session_id = $1", session_id)


async def _lock_administrators(connection: "PooledConnection") -> None:
    # Two who take each other's right away at once come one after the other: the second sees that nobody is left.
    await connection.execute("SELECT id FROM users WHERE is_admin AND disabled_at IS NULL ORDER BY id FOR UPDATE")


async def _check_administrators(connection: "PooledConnection") -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM users WHERE is_admin AND disabled_at IS NULL)"):
        raise LastAdministrator
