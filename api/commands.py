"""The commands of `python -m api` and their exit codes."""

import asyncio
import logging
import sys
from collections.abc import Coroutine, Sequence
from typing import assert_never

from api.backup import Lines, make_backup, restore_backup, verify_backup
from api.cautions import check_surroundings
from api.command_line import Backup, Command, Migrate, Restore, RotateKeys, Serve, Verify, parsed
from api.keys import secret_keys
from api.known_secrets import known_secrets
from api.listening import CannotListen
from api.logs import set_up_logs
from api.rotation import KeysLeft, rotate_keys
from api.settings import BadSettings, Settings, load_settings
from api.supervisor import migrate_only, migrations_missing, serve
from api.tool_servers import tool_servers
from db.refusals import DatabaseNotReady
from services.backup.manifest import BadBackup
from services.telemetry.redaction import Redactor

try:
    from uvloop import new_event_loop
except ImportError:  # not made for this system
    new_event_loop = None

_CANNOT = (DatabaseNotReady, CannotListen, BadBackup, KeysLeft)

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after a clean end (Ctrl-C is one), 1 if it could not start, 2 for a wrong command or setting."""
    try:
        command = parsed(arguments)
    except SystemExit as exit_:
        return 2 if exit_.code else 0
    try:
        settings = load_settings()
        # Files that cannot be used are told of here, not in the middle of the start.
        servers = tool_servers(settings)
        cautions: list[str] = []
        if isinstance(command, Serve | RotateKeys):
            secret_keys(settings)
        if command == Serve():
            cautions = check_surroundings(settings)
    except BadSettings as problems:
        return _complain(f"Settings that cannot be used (from the environment or .env):\n{problems}", 2)
    redactor = Redactor(known_secrets(settings, servers))
    set_up_logs(settings.log_level, settings.log_format, redactor, sys.stderr)
    for caution in cautions:
        _log.warning("%s", caution)
    return _run(_carried_out(command, settings), redactor)


def _run(work: Coroutine[object, object, None], redactor: Redactor) -> int:
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work)
    except _CANNOT as refusal:
        return _complain(redactor.clean(str(refusal)), 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass  # asked to stop before it was up
    return 0


def _carried_out(command: Command, settings: Settings) -> Coroutine[object, object, None]:
    match command:
        case Serve():
            return _serve(settings)
        case Migrate():
            return _tell_migrations(settings) if command.status else _migrate(settings)
        case Backup():
            return _printed(make_backup(settings, command.file, with_secret_key=command.with_secret_key))
        case Verify():
            return _printed(verify_backup(command.file))
        case Restore():
            return _printed(restore_backup(settings, command.file, replace=command.replace))
        case RotateKeys():
            return _printed(rotate_keys(settings))
        case _:
            assert_never(command)


async def _serve(settings: Settings) -> None:
    # Here and not above: it takes a second to import, which neither a typing error in .env nor `migrate` should cost.
    from api.main import create_app  # noqa: PLC0415

    await serve(settings, create_app, announce=_announce)


async def _migrate(settings: Settings) -> None:
    applied = await migrate_only(settings)
    for migration in applied:
        print(f"applied {migration.version:04}_{migration.name}")
    print("The database is up to date.")


async def _tell_migrations(settings: Settings) -> None:
    missing = await migrations_missing(settings)
    for migration in missing:
        print(f"would apply {migration.version:04}_{migration.name}")
    if not missing:
        print("The database is up to date.")


async def _printed(lines: Lines) -> None:
    try:
        async for line in lines:
            print(line)
    except FileExistsError as error:
        raise BadBackup(f"{error.args[0]} exists already: nothing was written.") from error
    except OSError as error:
        raise BadBackup(f"{error.filename or 'The disk'}: {error.strerror or error}.") from error


def _announce(lines: Sequence[str]) -> None:
    # Flushed, because whoever waits for these lines may be reading a pipe.
    print("\n".join(lines), flush=True)


def _complain(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
