"""The schema that the database is at, and what there is in it."""

from dataclasses import dataclass
from datetime import datetime

from db.pool import Database
from db.stores.rows import records


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """A step of the schema that this database has."""

    version: int
    name: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension of PostgreSQL that is installed."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with its indexes; `rows` is an estimate of PostgreSQL's, -1 if it has not looked yet."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What PostgreSQL says about itself and this database."""

    server_version: str
    size_bytes: int
    started_at: datetime
    clients: int
    clients_at_most: int


class SchemaStore:
    """What migrations the database has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self) -> int:
        """The number of the newest migration that was applied."""
        async with self._database.connection() as connection:
            version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
        return version

    async def facts(self) -> DatabaseFacts:
        """What the server is and how large the database."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT current_setting('server_version') AS server_version,
                    pg_database_size(current_database()) AS size_bytes, pg_postmaster_start_time() AS started_at,
                    (SELECT sum(numbackends)::int FROM pg_stat_database) AS clients,
                    current_setting('max_connections')::int AS clients_at_most
                """
            )
        assert row is not None
        return DatabaseFacts(**dict(row))

    async def migrations(self) -> list[AppliedMigration]:
        """The steps that were applied, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT version, name, applied_at FROM schema_migrations ORDER BY version")
        return records(AppliedMigration, rows)

    async def extensions(self) -> list[Extension]:
        """What is installed in this database."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY 1")
        return records(Extension, rows)

    async def tables(self) -> list[TableSize]:
        """All tables of ours, the largest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT relname AS name, reltuples::bigint AS rows, pg_total_relation_size(oid) AS bytes
                FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
                ORDER BY 3 DESC, 1
                """
            )
        return records(TableSize, rows)
