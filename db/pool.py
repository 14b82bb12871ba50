"""The connection pool, with the driver's errors put into our words."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import orjson

from db.errors import DatabaseError, DatabaseUnavailable, DuplicateName, WriteConflict

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    PooledConnection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

_CLOSE_SECONDS = 5
_READY = 4

_SETTINGS = {
    "application_name": "colloquy",
    # Short statements with an index for each: a plan that was made while a table was small must not be one that
    # reads all of it, and neither planning anew nor compiling would pay.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # Who falls asleep between two statements shall not keep a session locked: others have to take over its runs.
    "idle_in_transaction_session_timeout": "5s",
}

# An interrupted connection shows as any of these, a plain OSError among them.
_LOST = (
    OSError,  # TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
)
_CONFLICT = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    # A newer version has just migrated the database; the statement is prepared anew the next time.
    asyncpg.InvalidCachedStatementError,
)


class Database:
    """A pool of connections to one database."""

    def __init__(self, dsn: str, pool: "Pool", waited: Callable[[float], None] | None = None) -> None:
        self._dsn = dsn
        self._pool = pool
        self._waited = waited or _nobody_measures
        self.waiting = 0
        """How many wait for a connection."""

    @classmethod
    async def connect(
        cls, dsn: str, *, size: int, durable: bool = True, waited: Callable[[float], None] | None = None
    ) -> "Database":
        """Open at least one connection; raises `DatabaseUnavailable`.

        `waited` is told for how many seconds each connection was waited for.

        With `durable=False` a commit is answered before it is on disk: for measuring what durability costs.
        """
        settings = _SETTINGS | ({} if durable else {"synchronous_commit": "off"})
        with translated():
            pool = await asyncpg.create_pool(
                dsn,
                # Ready before they are needed: whoever waits for a new connection waits for several round trips.
                min_size=min(_READY, size),
                max_size=size,
                max_inactive_connection_lifetime=0,
                init=_prepare,
                reset=_nothing_to_reset,
                command_timeout=30,
                timeout=10,
                server_settings=settings,
            )
        return cls(dsn, pool, waited)

    async def close(self) -> None:
        """Give every connection back, waiting for those in use for a few seconds at most."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> "AsyncGenerator[PooledConnection, None]":
        """A connection for a few statements; never hold it while a model, a tool or a script talks."""
        with translated():
            begun = time.perf_counter()
            self.waiting += 1
            try:
                connection = await self._pool.acquire()
            finally:
                self.waiting -= 1
            try:
                self._waited(time.perf_counter() - begun)
                yield connection
            finally:
                await self._pool.release(connection)

    @property
    def connections(self) -> dict[str, int]:
        """How many connections are in use and idle, and how many there may be."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return {"in_use": size - idle, "idle": idle, "limit": self._pool.get_max_size()}

    @asynccontextmanager
    async def transaction(self) -> "AsyncGenerator[PooledConnection, None]":
        """A short transaction, committed on leaving."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def listen(
        self, channels: dict[str, Callable[[str], None]], lost: Callable[[], None]
    ) -> Callable[[], Awaitable[None]]:
        """Call `channels[name](payload)` for each notification; `lost()` once if the connection breaks.

        Returns the coroutine function that closes the connection. It is one of its own: the pool would drop
        the listeners.
        """
        with translated():
            connection: Connection = await asyncpg.connect(self._dsn, timeout=10)
            try:
                for channel, heard in channels.items():
                    await connection.add_listener(channel, _payload_to(heard))
            except BaseException:  # a cancelled start must not leave it open either
                connection.terminate()
                raise
        connection.add_termination_listener(lambda _connection: lost())

        async def close() -> None:
            if not connection.is_closed():
                await connection.close(timeout=2)

        return close


def _nobody_measures(_seconds: float) -> None:
    return None


def _payload_to(heard: Callable[[str], None]) -> Callable[[Any, int, str, object], None]:
    def relay(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    return relay


class translated:  # noqa: N801 - reads as a statement: `with translated():`
    """Turns the driver's exceptions into those of `db.errors`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _tb: object) -> None:
        match error:
            case asyncpg.UniqueViolationError():
                raise DuplicateName(error.constraint_name or "") from error
            case asyncpg.PostgresError() if isinstance(error, _CONFLICT):
                raise WriteConflict(str(error)) from error
            case Exception() if isinstance(error, _LOST):
                raise DatabaseUnavailable(str(error) or type(error).__name__) from error
            case asyncpg.PostgresError():
                raise DatabaseError(str(error)) from error
            case _:
                return


async def _prepare(connection: "Connection") -> None:
    await connection.set_type_codec("jsonb", encoder=_to_json, decoder=orjson.loads, schema="pg_catalog", format="text")
    # The driver looks a type up when it first meets it: better now than in somebody's message.
    await connection.prepare("SELECT $1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::jsonb")


def _to_json(value: object) -> str:
    return orjson.dumps(value, default=_id_as_text).decode()


def _id_as_text(value: object) -> str:
    # The driver makes UUIDs of a class of its own, which orjson does not take for one.
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


async def _nothing_to_reset(_connection: object) -> None:
    # Our statements leave no session state behind (no SET, no LISTEN, no session locks), and the usual reset
    # costs a round trip for each use.
    return None
