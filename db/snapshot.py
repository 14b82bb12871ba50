"""All rows of a database as they were at one moment, while it goes on being used."""

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from db.ids import FileId
from db.migrate import LOCK
from db.refusals import DatabaseUnreachable

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LEFT_OUT = frozenset({"schema_migrations", "replicas", "socket_tickets"})
"""Tables that mean something only where they are."""

# The same text on every server, and no end to a transaction that is long by nature.
SETTINGS = {
    "application_name": "colloquy backup",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "60s",
}

_FILES_AT_ONCE = 1_000
_ABOUT_FILES: Mapping[str, str] = {"files": "id", "file_passages": "file_id"}

Sink = Callable[[bytes], Coroutine[Any, Any, None]]


class NotColloquys(DatabaseUnreachable):
    """There is no Colloquy in this database."""


@dataclass(frozen=True, slots=True)
class Step:
    """A migration that the database has applied."""

    version: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table and those of its columns that are not computed from others."""

    name: str
    columns: tuple[str, ...]


class Snapshot:
    """Reads one moment of a database. Made by `snapshot`."""

    def __init__(self, connection: "Connection", dsn: str) -> None:
        self._connection = connection
        self._dsn = dsn

    async def taken_at(self) -> datetime:
        """The moment."""
        return await self._connection.fetchval("SELECT now()")

    async def steps(self) -> list[Step]:
        """The migrations that have made its schema."""
        rows = await self._connection.fetch("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
        return [Step(**row) for row in rows]

    async def tables(self) -> list[Table]:
        """Everything that there is to copy, by name."""
        rows = await self._connection.fetch(
            """
            SELECT c.relname::text AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
              AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
            GROUP BY c.relname ORDER BY c.relname
            """
        )
        return [Table(row["name"], tuple(row["columns"])) for row in rows if row["name"] not in LEFT_OUT]

    async def copy(self, table: Table, sink: Sink, *, without: Collection[FileId] = ()) -> int:
        """Give the table's rows to `sink`, in COPY's text format, and return how many there are.

        `without` are files that are to be left out of every table that is about files.
        """
        if without and table.name in _ABOUT_FILES:
            done = await self._copy_without(table, _ABOUT_FILES[table.name], without, sink)
        else:
            columns = list(table.columns)
            done = await self._connection.copy_from_table(
                table.name, schema_name="public", columns=columns, output=sink
            )
        return int(done.split()[-1])

    async def _copy_without(self, table: Table, column: str, without: Collection[FileId], sink: Sink) -> str:
        query = await self._connection.fetchval(
            """
            SELECT format('SELECT %s FROM public.%I WHERE %I <> ALL ($1::uuid[])', string_agg(quote_ident(name), ', '
                          ORDER BY place), $1::text, $2::text)
            FROM unnest($3::text[]) WITH ORDINALITY AS c (name, place)
            """,
            table.name,
            column,
            list(table.columns),
        )
        return await self._connection.copy_from_query(query, list(without), output=sink)

    async def files(self) -> AsyncGenerator[FileId, None]:
        """The files whose bytes lie in the vault."""
        async for row in self._connection.cursor("SELECT id FROM files ORDER BY id", prefetch=_FILES_AT_ONCE):
            yield FileId(row["id"])

    async def vault(self) -> str | None:
        """The folder of the vault."""
        vault = await self._connection.fetchval("SELECT id FROM file_vault")
        return vault and str(vault)

    async def exist_now(self, files: Collection[FileId]) -> set[FileId]:
        """Which of the files have not been deleted since."""
        connection: Connection = await asyncpg.connect(self._dsn, timeout=10, server_settings=SETTINGS)
        try:
            rows = await connection.fetch("SELECT id FROM files WHERE id = ANY ($1::uuid[])", list(files))
        finally:
            await connection.close()
        return {FileId(row["id"]) for row in rows}


@asynccontextmanager
async def snapshot(dsn: str) -> AsyncGenerator[Snapshot, None]:
    """The database as it is now, for as long as the context lasts. Nobody is held up but whoever would migrate it.

    Raises `DatabaseUnreachable`.
    """
    connection = await connected(dsn)
    try:
        # Migrations wait: a table that is rewritten looks empty to a moment before.
        await connection.execute("SELECT pg_advisory_lock_shared($1)", LOCK)
        if not await connection.fetchval("SELECT to_regclass('public.schema_migrations') IS NOT NULL"):
            raise NotColloquys
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield Snapshot(connection, dsn)
    finally:
        await connection.close()


async def connected(dsn: str) -> "Connection":
    """A connection for long work. Raises `DatabaseUnreachable`."""
    try:
        return await asyncpg.connect(dsn, timeout=10, server_settings=SETTINGS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise DatabaseUnreachable(f"The database does not answer: {error or 'timeout'}.") from error
