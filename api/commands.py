"""The commands of `python -m api` and their exit codes."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence

from api.keys import secret_keys
from api.known_secrets import known_secrets
from api.listening import CannotListen
from api.logs import set_up_logs
from api.settings import BadSettings, Settings, load_settings
from api.supervisor import migrate_only, serve
from api.tool_servers import tool_servers
from db.refusals import DatabaseNotReady
from services.telemetry.redaction import Redactor

try:
    from uvloop import new_event_loop
except ImportError:  # not made for this system
    new_event_loop = None

_USAGE = "usage: python -m api [migrate]"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after a clean end (Ctrl-C is one), 1 if it could not start, 2 for a wrong command or setting."""
    command = {"": _serve, "migrate": _migrate}.get(" ".join(arguments))
    if command is None:
        return _complain(_USAGE, 2)
    try:
        settings = load_settings()
        # Files that cannot be used are told of here, not in the middle of the start.
        servers = tool_servers(settings)
        if command is _serve:
            secret_keys(settings)
    except BadSettings as problems:
        return _complain(f"Settings that cannot be used (from the environment or .env):\n{problems}", 2)
    redactor = Redactor(known_secrets(settings, servers))
    set_up_logs(settings.log_level, settings.log_format, redactor, sys.stderr)
    return _run(command, settings, redactor)


def _run(command: Callable[[Settings], Coroutine[object, object, None]], settings: Settings, redactor: Redactor) -> int:
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(command(settings))
    except (DatabaseNotReady, CannotListen) as refusal:
        return _complain(redactor.clean(str(refusal)), 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass  # asked to stop before it was up
    return 0


async def _serve(settings: Settings) -> None:
    # Here and not above: it takes a second to import, which neither a typing error in .env nor `migrate` should cost.
    from api.main import create_app  # noqa: PLC0415

    await serve(settings, create_app, announce=_announce)


async def _migrate(settings: Settings) -> None:
    applied = await migrate_only(settings)
    for migration in applied:
        print(f"applied {migration.version:04}_{migration.name}")
    print("The database is up to date.")


def _announce(lines: Sequence[str]) -> None:
    # Flushed, because whoever waits for these lines may be reading a pipe.
    print("\n".join(lines), flush=True)


def _complain(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
