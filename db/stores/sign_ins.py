"""Sign-ins, and the refresh tokens by which they go on: each token is used once, and followed by the next."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from db.ids import SignInId, UserId
from db.pool import Database
from db.records import SignInRecord, UserRecord
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection

Ending = Literal["logout", "password", "disabled", "reuse", "replaced"]
"""Why a sign-in was ended: by its user, by a new password, by an administrator, because a used token came back, or
because there were too many."""

_USED_TOKENS_KEPT = 1_000
"""Of one sign-in, so that one of them that comes back ends it: ten days of them, where each lasts a quarter hour."""


@dataclass(frozen=True, slots=True)
class NewSignIn:
    """A sign-in to be stored, with the hash of its first refresh token."""

    id: SignInId
    user_id: UserId
    token_hash: bytes
    user_agent: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The token was good, and its successor stands for it from now on."""

    user: UserRecord
    sign_in_id: SignInId


@dataclass(frozen=True, slots=True)
class Reused:
    """The token had been used by somebody else; the sign-in has ended."""

    user_id: UserId
    sign_in_id: SignInId


@dataclass(frozen=True, slots=True)
class Standing:
    """How a refresh token stands; its sign-in is alive, and its user not disabled."""

    sign_in_id: SignInId
    user_id: UserId
    used_seconds_ago: float | None
    is_next_unused: bool


class SignInStore:
    """Every sign-in that there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, new: NewSignIn, *, password_hash: str, most: int) -> UserRecord | None:
        """Store a sign-in whose password was the one behind `password_hash`.

        None if the user was disabled or has another password by now. Of more than `most` sign-ins the oldest ends.
        """
        async with self._database.transaction() as connection:
            # Whoever disables the user or changes the password comes before this or after it, never in between.
            row = await connection.fetchrow(
                "SELECT * FROM users WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL FOR SHARE",
                new.user_id,
                password_hash,
            )
            if row is None:
                return None
            await connection.execute(
                """
                INSERT INTO sign_ins (id, user_id, user_agent, expires_at)
                VALUES ($1, $2, $3, now() + make_interval(secs => $4))
                """,
                new.id,
                new.user_id,
                new.user_agent,
                new.seconds,
            )
            await connection.execute(
                "INSERT INTO refresh_tokens (hash, sign_in_id) VALUES ($1, $2)", new.token_hash, new.id
            )
            await _tidy(connection, new.user_id, most)
        return record(UserRecord, row)

    async def user_of(self, sign_in_id: SignInId, user_id: UserId) -> UserRecord | None:
        """The user of a sign-in that is alive, unless disabled: what each request is checked by."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT u.* FROM sign_ins s JOIN users u ON u.id = s.user_id
                WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > now()
                  AND u.disabled_at IS NULL
                """,
                sign_in_id,
                user_id,
            )
        return record_or_none(UserRecord, row)

    async def refresh(
        self, token_hash: bytes, next_hash: bytes, *, grace_seconds: float, seconds: int
    ) -> Refreshed | Reused | None:
        """Use a token up and store the one that follows; the sign-in then goes on for `seconds`.

        A token that was used is answered the same for `grace_seconds`, as long as its successor is unused; after
        that somebody has a copy of it, and the sign-in ends. None if the token is of no use.
        """
        async with self._database.transaction() as connection:
            standing = await _standing(connection, token_hash, next_hash)
            if standing is None:
                return None
            if standing.used_seconds_ago is None:
                await _use(connection, standing.sign_in_id, token_hash, next_hash, seconds)
            elif standing.used_seconds_ago > grace_seconds or not standing.is_next_unused:
                await _end(connection, standing.sign_in_id, standing.user_id, "reuse")
                return Reused(standing.user_id, standing.sign_in_id)
            row = await connection.fetchrow("SELECT * FROM users WHERE id = $1", standing.user_id)
            assert row is not None
        return Refreshed(record(UserRecord, row), standing.sign_in_id)

    async def of_token(self, token_hash: bytes) -> tuple[UserId, SignInId] | None:
        """Whose refresh token this is, and of which sign-in, alive or not."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT s.user_id, s.id FROM refresh_tokens t JOIN sign_ins s ON s.id = t.sign_in_id
                WHERE t.hash = $1 AND t.used_at IS NULL
                """,
                token_hash,
            )
        return None if row is None else (UserId(row["user_id"]), SignInId(row["id"]))

    async def list(self, user_id: UserId, *, before: SignInId | None, limit: int) -> list[SignInRecord]:
        """The user's sign-ins that are alive and began before `before`, newest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM sign_ins
                WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now() AND ($2::uuid IS NULL OR id < $2)
                ORDER BY id DESC LIMIT $3
                """,
                user_id,
                before,
                limit,
            )
        return records(SignInRecord, rows)

    async def end(self, sign_in_id: SignInId, user_id: UserId, why: Ending) -> bool:
        """End one sign-in of the user; False if there is none that is alive."""
        async with self._database.connection() as connection:
            return await _end(connection, sign_in_id, user_id, why)

    async def end_all(self, user_id: UserId, why: Ending, *, but: SignInId | None = None) -> None:
        """End all sign-ins of the user, but for one."""
        async with self._database.connection() as connection:
            await end_all(connection, user_id, why, but=but)


async def end_all(connection: "PooledConnection", user_id: UserId, why: Ending, *, but: SignInId | None = None) -> None:
    """What `SignInStore.end_all` does, within a transaction."""
    await connection.execute(
        """
        UPDATE sign_ins SET revoked_at = now(), revoked_because = $2
        WHERE user_id = $1 AND revoked_at IS NULL AND ($3::uuid IS NULL OR id <> $3)
        """,
        user_id,
        why,
        but,
    )


async def _standing(connection: "PooledConnection", token_hash: bytes, next_hash: bytes) -> Standing | None:
    # The sign-in is locked before its tokens are looked at, so that of two who come with one token each sees what
    # the other has left.
    locked = await connection.fetchrow(
        """
        SELECT s.id FROM sign_ins s JOIN users u ON u.id = s.user_id
        WHERE s.id = (SELECT sign_in_id FROM refresh_tokens WHERE hash = $1)
          AND s.revoked_at IS NULL AND s.expires_at > now() AND u.disabled_at IS NULL
        FOR UPDATE OF s
        """,
        token_hash,
    )
    if locked is None:
        return None
    row = await connection.fetchrow(
        """
        SELECT t.sign_in_id, s.user_id,
               extract(epoch FROM clock_timestamp() - t.used_at)::float8 AS used_seconds_ago,
               coalesce(following.used_at IS NULL AND following.hash IS NOT NULL, false) AS is_next_unused
        FROM refresh_tokens t JOIN sign_ins s ON s.id = t.sign_in_id
             LEFT JOIN refresh_tokens following ON following.hash = $2 AND following.sign_in_id = t.sign_in_id
        WHERE t.hash = $1
        """,
        token_hash,
        next_hash,
    )
    return record_or_none(Standing, row)


async def _use(
    connection: "PooledConnection", sign_in_id: SignInId, token_hash: bytes, next_hash: bytes, seconds: int
) -> None:
    await connection.execute(
        """
        WITH used AS (UPDATE refresh_tokens SET used_at = clock_timestamp() WHERE hash = $2),
             following AS (INSERT INTO refresh_tokens (hash, sign_in_id) VALUES ($3, $1))
        UPDATE sign_ins SET last_used_at = now(), expires_at = now() + make_interval(secs => $4) WHERE id = $1
        """,
        sign_in_id,
        token_hash,
        next_hash,
        seconds,
    )
    # Whoever refreshes without pause must not fill the disk. A copy of a token as old as that opens nothing either.
    await connection.execute(
        """
        DELETE FROM refresh_tokens WHERE sign_in_id = $1 AND used_at < (
            SELECT used_at FROM refresh_tokens WHERE sign_in_id = $1 AND used_at IS NOT NULL
            ORDER BY used_at DESC OFFSET $2 LIMIT 1
        )
        """,
        sign_in_id,
        _USED_TOKENS_KEPT,
    )


async def _end(connection: "PooledConnection", sign_in_id: SignInId, user_id: UserId, why: Ending) -> bool:
    ended = await connection.fetchval(
        """
        UPDATE sign_ins SET revoked_at = now(), revoked_because = $3
        WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now() RETURNING true
        """,
        sign_in_id,
        user_id,
        why,
    )
    return bool(ended)


async def _tidy(connection: "PooledConnection", user_id: UserId, most: int) -> None:
    """Forget the user's sign-ins that ended long ago, and end the oldest of too many."""
    await connection.execute(
        """
        DELETE FROM sign_ins
        WHERE user_id = $1 AND least(coalesce(revoked_at, expires_at), expires_at) < now() - interval '30 days'
        """,
        user_id,
    )
    await connection.execute(
        """
        UPDATE sign_ins SET revoked_at = now(), revoked_because = 'replaced'
        WHERE id IN (
            SELECT id FROM sign_ins WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
            ORDER BY id DESC OFFSET $2
        )
        """,
        user_id,
        most,
    )
