"""Filling a database with rows from elsewhere: all of it or nothing."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from db.migrate import LOCK, Migration, apply, prepare_history
from db.refusals import DatabaseNotReady
from db.snapshot import Step, Table, connected

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LIVES_SECONDS = 30.0


class DatabaseNotEmpty(DatabaseNotReady):
    """The database is not empty: name an empty one, or say --replace to lose what is in it."""


class DatabaseInUse(DatabaseNotReady):
    """A Colloquy runs on this database: stop it first."""


class NotOurs(DatabaseNotReady):
    """There are tables in this database that are not Colloquy's: name another."""


class BackupFromElsewhere(DatabaseNotReady):
    """The backup was made by a Colloquy whose schema this one does not know."""


class RowsRefused(DatabaseNotReady):
    """The rows do not fit into the database; nothing was changed."""


class Refill:
    """A database that is being filled. Made by `refill`."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def fill(self, table: Table, rows: AsyncIterable[bytes]) -> int:
        """Put rows in COPY's text format into an empty table, and return how many there were."""
        done = await self._connection.copy_to_table(
            table.name, schema_name="public", columns=list(table.columns), source=rows
        )
        return int(done.split()[-1])

    async def begin_anew(self, *, epoch: UUID, vault: UUID) -> None:
        """Make the rows those of another life of the service.

        Positions that clients remember mean nothing any more, the bytes of files lie in a folder of their own, whatever
        was running or waiting is to be ended by whoever starts first, and everybody has to sign in again: what was
        revoked since the backup must not come back to life.
        """
        execute = self._connection.execute
        await execute("UPDATE journal_epoch SET epoch = $1", epoch)
        await execute("UPDATE file_vault SET id = $1", vault)
        await execute("UPDATE journals SET lease_until = now(), replica_id = NULL WHERE run_id IS NOT NULL")
        await execute("UPDATE runs SET interrupt_by = coalesce(interrupt_by, 'recovery') WHERE state <> 'finished'")
        await execute("UPDATE post_responses SET lease_until = now() WHERE state = 'working'")
        await execute("UPDATE files SET reading_until = now() WHERE text_state = 'waiting'")
        await execute("DELETE FROM sign_ins")


@asynccontextmanager
async def refill(
    dsn: str, steps: Sequence[Step], known: Sequence[Migration], *, replace: bool
) -> AsyncGenerator[Refill, None]:
    """Make the schema that `steps` made, let it be filled, and bring it to the newest of `known`; in one transaction.

    Raises `DatabaseUnreachable`, `DatabaseInUse`, `DatabaseNotEmpty`, `NotOurs`, `BackupFromElsewhere`, `RowsRefused`.
    """
    _check_known(steps, known)
    connection = await connected(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            await _make_room(connection, replace=replace)
            await prepare_history(connection)
            for migration in known[: len(steps)]:
                await apply(connection, migration)
            await _loosen_and_empty(connection)
            filling = Refill(connection)
            yield filling
            await _tighten(connection)
            for migration in known[len(steps) :]:
                await apply(connection, migration)
        await connection.execute("ANALYZE")
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.UndefinedColumnError) as error:
        raise RowsRefused(f"The rows do not fit into the database; nothing was changed: {error}.") from error
    finally:
        await connection.close()


async def current_vault(dsn: str) -> UUID | None:
    """The folder in which the bytes of this database's files lie, if it has any."""
    connection = await connected(dsn)
    try:
        if not await connection.fetchval("SELECT to_regclass('public.file_vault') IS NOT NULL"):
            return None
        return await connection.fetchval("SELECT id FROM file_vault")
    finally:
        await connection.close()


def _check_known(steps: Sequence[Step], known: Sequence[Migration]) -> None:
    if len(steps) > len(known):
        raise BackupFromElsewhere(
            f"The backup has schema {len(steps)}, this Colloquy knows only up to {len(known)}: "
            "restore it with a newer one."
        )
    for step, migration in zip(steps, known, strict=False):
        if (step.version, step.sha256) != (migration.version, migration.sha256):
            raise BackupFromElsewhere(f"The backup was made with another migration {step.version:04}_{step.name}.")


async def _make_room(connection: "Connection", *, replace: bool) -> None:
    tables = await connection.fetch(
        """
        SELECT format('DROP TABLE %I.%I CASCADE', n.nspname, c.relname) AS goodbye, c.relname AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
        """
    )
    names = {row["name"] for row in tables}
    if not names:
        return
    if "schema_migrations" not in names:
        raise NotOurs
    if "replicas" in names and await connection.fetchval(
        "SELECT count(*) FROM replicas WHERE seen_at > now() - make_interval(secs => $1)", _LIVES_SECONDS
    ):
        raise DatabaseInUse
    if not replace:
        raise DatabaseNotEmpty
    functions = await connection.fetch(
        """
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure) AS goodbye FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
        """
    )
    for row in (*tables, *functions):
        await connection.execute(row["goodbye"])


async def _loosen_and_empty(connection: "Connection") -> None:
    """Let rows come in any order, and nothing be computed from them that is among them."""
    await connection.execute(
        """
        CREATE TEMPORARY TABLE loosened ON COMMIT DROP AS
        SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
                   AS again,
               format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS off
        FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
        UNION ALL
        SELECT DISTINCT format('ALTER TABLE %s ENABLE TRIGGER USER', tgrelid::regclass),
               format('ALTER TABLE %s DISABLE TRIGGER USER', tgrelid::regclass)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace
        """
    )
    await _run_all(connection, await connection.fetch("SELECT off FROM loosened"))
    await _run_all(
        connection,
        await connection.fetch(
            """
            SELECT format('TRUNCATE %s', string_agg(c.oid::regclass::text, ', ')) AS emptied FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'schema_migrations'
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
            """
        ),
    )


async def _tighten(connection: "Connection") -> None:
    """Put the rules back, which are checked with that, and let counters go on behind what is there."""
    await _run_all(connection, await connection.fetch("SELECT again FROM loosened"))
    await _run_all(
        connection,
        await connection.fetch(
            """
            SELECT format('SELECT setval(%L, coalesce(max(%I), 0) + 1, false) FROM %s', s.oid::regclass, a.attname,
                          a.attrelid::regclass)
            FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
            JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE s.relkind = 'S' AND s.relnamespace = 'public'::regnamespace
            """
        ),
    )


async def _run_all(connection: "Connection", statements: Sequence[asyncpg.Record]) -> None:
    for row in statements:
        await connection.execute(row[0])
