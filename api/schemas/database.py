"""The database, for administrators."""

from datetime import datetime
from typing import Self

from pydantic import ConfigDict, Field

from api.schemas.model import Answer
from services.database import DatabaseReport


class DatabaseTest(Answer):
    """The database answers."""

    ms: float = Field(description="How long a question and its answer took, in milliseconds.")


class DatabaseExtension(Answer):
    """An extension of PostgreSQL that is installed."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    version: str


class DatabaseMigration(Answer):
    """A step of the schema that was applied."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    name: str
    applied_at: datetime


class DatabaseTable(Answer):
    """A table with its indexes."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    rows: int = Field(description="An estimate; -1 if PostgreSQL has not looked yet.")
    bytes: int


class DatabasePool(Answer):
    """The connections of this process."""

    in_use: int
    idle: int
    limit: int


class DatabaseInfo(Answer):
    """What is known of the database; neither where it is nor how to get in."""

    server_version: str
    started_at: datetime
    size_bytes: int
    clients: int = Field(description="All that are connected to the server, ours among them.")
    clients_at_most: int
    is_current: bool = Field(description="Its schema is that of this version.")
    migrations: list[DatabaseMigration]
    extensions: list[DatabaseExtension]
    pool: DatabasePool
    tables: list[DatabaseTable] = Field(description="The largest first.")

    @classmethod
    def of(cls, report: DatabaseReport) -> Self:
        """What a client sees of the report."""
        facts = report.facts
        return cls(
            server_version=facts.server_version,
            started_at=facts.started_at,
            size_bytes=facts.size_bytes,
            clients=facts.clients,
            clients_at_most=facts.clients_at_most,
            is_current=report.migrations[-1].version == report.newest_migration,
            migrations=[DatabaseMigration.model_validate(step) for step in report.migrations],
            extensions=[DatabaseExtension.model_validate(extension) for extension in report.extensions],
            pool=DatabasePool(**report.pool),
            tables=[DatabaseTable.model_validate(table) for table in report.tables],
        )
