"""Why the database cannot be used at start. A docstring is the default message: it says what to do about it."""

import inspect
from collections.abc import Iterable
from pathlib import Path


class DatabaseNotReady(Exception):
    """The database cannot be used."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class NoUsablePostgres(DatabaseNotReady):
    """No PostgreSQL programs were found that run on this machine: set DATABASE_URL, or PG_BIN to their directory."""

    def __init__(self, looked_in: Iterable[Path] = (), as_root: bool = False) -> None:
        lines = [inspect.cleandoc(type(self).__doc__ or "")]
        lines += [f"  tried {place}" for place in looked_in]
        if as_root:
            lines.append("  (PostgreSQL refuses to run as root, and this root may not become another user)")
        super().__init__("\n".join(lines))


class AlreadyRunning(DatabaseNotReady):
    """Another Colloquy is using this data directory: stop it, or choose another DATA_DIR."""


class DirectoryNotOurs(DatabaseNotReady):
    """The data directory belongs to another user."""


class OtherMajorVersion(DatabaseNotReady):
    """The data directory was made by another major version of PostgreSQL."""

    def __init__(self, data: Path, made_by: str, ours: int) -> None:
        super().__init__(
            f"{data} was made by PostgreSQL {made_by}, and the programs here are version {ours}. "
            f"Set PG_BIN to the programs of version {made_by}; to move on, dump with the old and restore with the new."
        )


class ServerDidNotStart(DatabaseNotReady):
    """PostgreSQL did not start."""


class DatabaseUnreachable(DatabaseNotReady):
    """The database at DATABASE_URL does not answer."""


class MigrationFailed(DatabaseNotReady):
    """A migration failed; the database is as it was before that migration."""


class SchemaIsBusy(DatabaseNotReady):
    """Somebody else changes this database's schema, or backs it up: try again when that is over."""


class MigrationChanged(DatabaseNotReady):
    """A migration that this database has already applied has been edited since: restore the file, add a new one."""


class DatabaseTooNew(DatabaseNotReady):
    """The database was migrated by a newer Colloquy: start that version."""


class MigrationsMisnumbered(DatabaseNotReady):
    """Migrations must be named NNNN_words.sql and numbered 1, 2, 3 … without gap or repetition."""


class DatabaseTooOld(DatabaseNotReady):
    """The database server is older than Colloquy can use."""
