"""Brings a database to the schema of this version: numbered files of SQL, each applied once, in order."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from db.refusals import (
    DatabaseTooNew,
    DatabaseTooOld,
    DatabaseUnreachable,
    MigrationChanged,
    MigrationFailed,
    MigrationsMisnumbered,
    SchemaIsBusy,
)

MIGRATIONS = Path(__file__).parent / "migrations"
OLDEST_POSTGRES = 15
LOCK = 0x436F6C6C6F717579  # "Colloquy": one starter migrates, the others wait; and all wait for a backup

_LOCK_WAIT = "60s"
_NOT_UP_YET = (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. `sha256` is over the text with plain line ends, so a checkout's style does not count."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str, directory: Path = MIGRATIONS, *, patience: float = 0) -> list[Migration]:
    """Apply what is missing and return it. Each file is one transaction; any number of starters may call at once.

    A database that does not take connections is waited for, `patience` seconds at most: it may just be starting too.
    Raises DatabaseUnreachable, DatabaseTooOld, DatabaseTooNew, MigrationChanged, MigrationFailed,
    MigrationsMisnumbered, SchemaIsBusy.
    """
    migrations = read_migrations(directory)
    connection = await _connect(dsn, patience)
    try:
        return await _migrate(connection, migrations)
    finally:
        await connection.close()


def read_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """The steps in order. Raises MigrationsMisnumbered."""
    found: list[Migration] = []
    for position, path in enumerate(sorted(directory.glob("*.sql")), start=1):
        name = _NAME.fullmatch(path.name)
        if not name or int(name[1]) != position:
            raise MigrationsMisnumbered(f"{path} should be {position:04}_words.sql: numbers start at 1 without a gap.")
        found.append(Migration(position, name[2], path.read_text(encoding="utf-8")))
    return found


async def missing(dsn: str, directory: Path = MIGRATIONS, *, patience: float = 0) -> list[Migration]:
    """What `migrate` would apply; nothing is changed. Raises what `migrate` raises."""
    migrations = read_migrations(directory)
    connection = await _connect(dsn, patience)
    try:
        return await _missing(connection, migrations)
    finally:
        await connection.close()


async def _connect(dsn: str, patience: float) -> asyncpg.Connection:
    connection = await _answer(dsn, patience)
    if (version := connection.get_server_version()).major < OLDEST_POSTGRES:
        await connection.close()
        raise DatabaseTooOld(f"The database is PostgreSQL {version.major}; Colloquy needs {OLDEST_POSTGRES} or newer.")
    return connection


async def _answer(dsn: str, patience: float) -> asyncpg.Connection:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=10)
        except _NOT_UP_YET as error:
            if loop.time() > give_up:
                raise _unreachable(error) from error
            _log.warning("the database does not answer yet: %s", error or "timeout")
            await asyncio.sleep(1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise _unreachable(error) from error


def _unreachable(error: Exception) -> DatabaseUnreachable:
    return DatabaseUnreachable(f"The database at DATABASE_URL does not answer: {error or 'timeout'}.")


async def _migrate(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    if not await _missing(connection, migrations):
        return []  # the usual start waits for nobody
    await connection.execute(f"set lock_timeout = '{_LOCK_WAIT}'")
    # A lock of the session, not of a transaction: it has to outlive the transactions of the single files.
    try:
        await connection.execute("select pg_advisory_lock($1)", LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise SchemaIsBusy from error
    try:
        await prepare_history(connection)
        missing = await _missing(connection, migrations)
        for migration in missing:
            await apply(connection, migration)
        return missing
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def _missing(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """What this database has not applied yet. Raises DatabaseTooNew, MigrationChanged."""
    applied = await _applied(connection)
    _refuse_strangers(applied, migrations)
    return [migration for migration in migrations if migration.version not in applied]


async def prepare_history(connection: asyncpg.Connection) -> None:
    """See to it that the database can note what it has applied."""
    await connection.execute(
        """
        create table if not exists schema_migrations (
            version    int primary key,
            name       text not null,
            sha256     text not null,
            applied_at timestamptz not null default now()
        )
        """
    )


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    """Checksums of what this database has, by version."""
    if not await connection.fetchval("select to_regclass('schema_migrations') is not null"):
        return {}
    rows = await connection.fetch("select version, sha256 from schema_migrations")
    return {row["version"]: row["sha256"] for row in rows}


def _refuse_strangers(applied: dict[int, str], migrations: Sequence[Migration]) -> None:
    known = {migration.version: migration for migration in migrations}
    if newer := applied.keys() - known.keys():
        raise DatabaseTooNew(
            f"The database has schema {max(newer)}, this Colloquy knows only up to {len(known)}: start the newer one."
        )
    for version, sha256 in sorted(applied.items()):
        if known[version].sha256 != sha256:
            raise MigrationChanged(
                f"Migration {version:04}_{known[version].name} was edited after this database had applied it: "
                "restore the file and write the change as a new migration."
            )


async def apply(connection: asyncpg.Connection, migration: Migration) -> None:
    """Carry a step out and note it, both or neither. Raises MigrationFailed."""
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "insert into schema_migrations (version, name, sha256) values ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.sha256,
            )
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"Migration {migration.version:04}_{migration.name} failed: {error}") from error
