"""The process of a server: started without a shell, in a group of its own, and never left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from typing import Final

from services.errors import ToolUnavailable
from services.mcp.config import Program

# What programs need to find themselves, others and the user's language; no keys of ours.
_INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_GRACE = 1.0
"""Seconds for each step of ending a process: by itself, when asked to, when killed."""
_LOOK = 0.2
_BUFFER = 65_536


class ServerProcess:
    """A process of our own with its three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """`process` leads a session of its own."""
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    @staticmethod
    async def start(program: Program) -> "ServerProcess":
        """Start it. Raises `ToolUnavailable`, whose message is the reason alone."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(program.env)
        command = await asyncio.to_thread(_command, program, environment)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=program.cwd,
                start_new_session=True,
                limit=_BUFFER,
            )
        except (OSError, ValueError) as error:
            raise ToolUnavailable(f"it cannot be started: {error}") from error
        return ServerProcess(process)

    @property
    def outcome(self) -> str | None:
        """How it ended, for people; None if it has not."""
        code = self._process.returncode
        if code is None:
            return None
        return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"

    async def gone(self) -> None:
        """Return soon after it has ended."""
        # Not `wait`, which some event loops let wait for the pipes too, and its children may hold those.
        while self._process.returncode is None:
            await asyncio.sleep(_LOOK)

    async def end(self) -> bool:
        """End it and all that it has started, with force where needed; False if even that did not help."""
        self.stdin.close()
        has_ended = await self._has_ended()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not has_ended:
                self._signal(number)
                has_ended = await self._has_ended()
        self.kill()  # it may have left children behind
        # Public nowhere; without it, a pipe that somebody else still holds would keep the transport open.
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()
        return has_ended

    def kill(self) -> None:
        """End it and its children at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _has_ended(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._process.wait()
        return self._process.returncode is not None


def _command(program: Program, environment: Mapping[str, str]) -> list[str]:
    """The words to start it with."""
    command = program.command
    if program.cwd and "/" in command:
        command = os.path.join(program.cwd, command)
    found = shutil.which(command, path=environment.get("PATH", os.defpath))
    if not found:
        raise ToolUnavailable(f"there is no program {program.command!r}")
    # Where it is to be had, this asks the system to end the server should we be killed: one that hangs would not
    # notice the end of its input.
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    return [*prefix, os.path.abspath(found), *program.args]
