"""How the database is, for whoever looks after it. Nothing here tells where it is or how to get in."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.pool import Database
from db.stores.schema import AppliedMigration, DatabaseFacts, Extension, SchemaStore, TableSize


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """All of it. With `newest_migration` this version's schema is whole."""

    facts: DatabaseFacts
    extensions: Sequence[Extension]
    migrations: Sequence[AppliedMigration]
    newest_migration: int
    tables: Sequence[TableSize]
    pool: Mapping[str, int]
    """How many connections of ours are in use and idle, and how many there may be."""


class DatabaseInspector:
    """Asks the database about itself."""

    def __init__(self, database: Database, schema: SchemaStore, *, newest_migration: int) -> None:
        self._database = database
        self._schema = schema
        self._newest_migration = newest_migration

    async def answer_ms(self) -> float:
        """Milliseconds for one question and its answer. Raises `DatabaseUnavailable`."""
        began = time.monotonic()
        await self._schema.version()
        return round((time.monotonic() - began) * 1000, 3)

    async def report(self) -> DatabaseReport:
        """What is known. Raises `DatabaseUnavailable`."""
        schema = self._schema
        return DatabaseReport(
            await schema.facts(),
            await schema.extensions(),
            await schema.migrations(),
            self._newest_migration,
            await schema.tables(),
            self._database.connections,
        )
