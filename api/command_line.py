"""What can be typed after `python -m api`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve until a signal asks to stop."""


@dataclass(frozen=True, slots=True)
class Migrate:
    """Bring the database to this version's schema; with `status`, only tell what that would do."""

    status: bool


@dataclass(frozen=True, slots=True)
class Backup:
    """Write everything into a file, beside a running service or without one."""

    file: Path
    with_secret_key: bool


@dataclass(frozen=True, slots=True)
class Verify:
    """Read all of a backup and say what it is; needs no database."""

    file: Path


@dataclass(frozen=True, slots=True)
class Restore:
    """Put everything back; the service must not run."""

    file: Path
    replace: bool


@dataclass(frozen=True, slots=True)
class RotateKeys:
    """Seal what older secrets of the service have sealed with the newest, beside a running service or without one."""


Command = Serve | Migrate | Backup | Verify | Restore | RotateKeys


def parsed(arguments: Sequence[str]) -> Command:
    """The command; raises `SystemExit`, after it has said what can be typed, if there is no such."""
    words = _parser().parse_args(arguments)
    match words.command:
        case None:
            return Serve()
        case "migrate":
            return Migrate(words.status)
        case "backup":
            return Backup(words.file, words.with_secret_key)
        case "verify":
            return Verify(words.file)
        case "rotate-keys":
            return RotateKeys()
        case _:
            return Restore(words.file, words.replace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description="Without a command, serve.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    migrate = commands.add_parser("migrate", help="bring the database to this version's schema")
    migrate.add_argument("--status", action="store_true", help="only tell what that would do")
    backup = commands.add_parser("backup", help="write everything into a file, also beside a running service")
    backup.add_argument("file", type=Path, metavar="FILE")
    backup.add_argument("--with-secret-key", action="store_true", help="then whoever has the file can read saved keys")
    verify = commands.add_parser("verify", help="read all of a backup and say what it is")
    verify.add_argument("file", type=Path, metavar="FILE")
    restore = commands.add_parser("restore", help="put a backup back; the service must not run")
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--replace", action="store_true", help="lose what is in the database now")
    commands.add_parser("rotate-keys", help="seal saved keys with the newest secret, also beside a running service")
    return parser
