"""The commands of `python -m api` and their exit codes."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence

from api.listening import CannotListen
from api.settings import BadSettings, Settings, load_settings
from api.supervisor import migrate_only, serve
from api.tool_servers import tool_servers
from db.refusals import DatabaseNotReady

try:
    from uvloop import new_event_loop
except ImportError:  # not made for this system
    new_event_loop = None

# They write whole addresses and ids of other services' sessions, in which there may be keys; and whatever a tool server
# sends that they do not understand, as often as it does. The pool of tool servers says what went wrong.
_QUIET = {"httpx2": logging.WARNING, "httpcore2": logging.WARNING, "mcp": logging.CRITICAL, "client": logging.CRITICAL}
_USAGE = "usage: python -m api [migrate]"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after a clean end (Ctrl-C is one), 1 if it could not start, 2 for a wrong command or setting."""
    command = {"": _serve, "migrate": _migrate}.get(" ".join(arguments))
    if command is None:
        return _complain(_USAGE, 2)
    try:
        settings = load_settings()
        tool_servers(settings)  # a file that cannot be used is told of here, not in the middle of the start
    except BadSettings as problems:
        return _complain(f"Settings that cannot be used (from the environment or .env):\n{problems}", 2)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    return _run(command, settings)


def _run(command: Callable[[Settings], Coroutine[object, object, None]], settings: Settings) -> int:
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(command(settings))
    except (DatabaseNotReady, CannotListen) as refusal:
        return _complain(str(refusal), 1)
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
