"""The schema that the database is at."""

from db.pool import Database


class SchemaStore:
    """What migrations the database has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self) -> int:
        """The number of the newest migration that was applied."""
        async with self._database.connection() as connection:
            version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
        return version
