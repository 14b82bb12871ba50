"""The command `python -m terminal`: what can be asked of it, and its exit codes."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from urllib.parse import urlsplit

from terminal.errors import CannotChat
from terminal.lines import Lines
from terminal.screen import Screen
from terminal.service import Service
from terminal.talk import HELP, Talk, Wishes

_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(words: Sequence[str]) -> int:
    """The exit code: 0 after a clean end, 1 if the service could not be used or a reply failed, 130 after Ctrl-C."""
    arguments = _parse(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that does not know a letter shows a question mark
    try:
        return asyncio.run(_talk(arguments))
    except CannotChat as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except BrokenPipeError:  # whoever read our output has left, and flushing at exit would say so once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED


async def _talk(arguments: argparse.Namespace) -> int:
    is_prompting = sys.stdin.isatty() and sys.stdout.isatty()
    # Not an argument: those stand in the list of processes, for everybody on the machine.
    async with Service.at(arguments.url, key=os.environ.get("COLLOQUY_API_KEY")) as service:
        wishes = await _wishes(service, arguments)
        screen = Screen(sys.stdout, sys.stderr)
        talk = Talk(service, Lines(sys.stdin.fileno()), screen, wishes, is_prompting=is_prompting)
        await talk.run(arguments.session)
    return 1 if talk.failures and not is_prompting else 0


async def _wishes(service: Service, arguments: argparse.Namespace) -> Wishes:
    chosen = {"model": arguments.model} if arguments.model else {}
    persona = {"persona_id": await service.persona_id(arguments.persona)} if arguments.persona else {}
    connection: str | None = arguments.connection
    for_session = {"connection": connection} if connection else {}
    for_message = {"connection_id": connection} if connection else {}
    return Wishes(chosen | persona | for_session, chosen | persona | for_message)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m terminal",
        description="Talk to a running Colloquy. Lines from a pipe get one reply each.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", type=_address, default="http://127.0.0.1:8000", help="where it runs (%(default)s)")
    parser.add_argument("--session", metavar="ID", help="continue this session instead of beginning one")
    parser.add_argument("--persona", metavar="NAME_OR_ID", help="who answers")
    parser.add_argument("--model", help="the model that answers")
    parser.add_argument("--connection", metavar="NAME", help="the model server to ask")
    return parser.parse_args(words)


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8000")
    return text.rstrip("/")
