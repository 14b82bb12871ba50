"""The two programs as they are started: the terminal client, and the service when it has to be killed."""

import asyncio
import fcntl
import os
import pty
import signal
import socket
import sys
import termios
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import httpx2

from tests.waiting import eventually

ROOT = Path(__file__).parents[3]


class TerminalClient:
    """A running `python -m terminal`. `said` and `noticed` are its two streams so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said = ""
        self.noticed = ""

    async def keep_reading(self) -> None:
        """Until both streams end."""
        assert self.process.stdout
        assert self.process.stderr
        await asyncio.gather(self._read(self.process.stdout, "said"), self._read(self.process.stderr, "noticed"))

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        whole = b""
        while piece := await stream.read(65536):
            whole += piece
            setattr(self, name, whole.decode(errors="replace"))

    def type(self, *lines: str) -> None:
        """Write lines to its input."""
        assert self.process.stdin
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    def press_ctrl_c(self) -> None:
        """What a terminal does for it."""
        self.process.send_signal(signal.SIGINT)

    async def says(self, text: str, seconds: float = 10) -> None:
        """Return when it has said that."""
        await _comes(lambda: text in self.said, self, seconds)

    async def notices(self, text: str, seconds: float = 10) -> None:
        """Return when it has told the person that."""
        await _comes(lambda: text in self.noticed, self, seconds)

    async def end(self) -> int:
        """Let the input end; the exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return await self.ended()

    async def ended(self, seconds: float = 20) -> int:
        """The exit code, when it has left by itself."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()


async def _comes(condition: object, client: TerminalClient, seconds: float) -> None:
    assert callable(condition)
    try:
        await eventually(condition, seconds)
    except AssertionError as error:
        raise AssertionError(f"said {client.said!r}, noticed {client.noticed!r}") from error


@asynccontextmanager
async def terminal(address: str, *arguments: str, stdin: int | IO[str] = PIPE) -> AsyncGenerator[TerminalClient, None]:
    """The client with pipes for its streams."""
    command = [sys.executable, "-m", "terminal", "--url", address, *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=stdin, stdout=PIPE, stderr=PIPE)
    client = TerminalClient(process)
    reading = asyncio.create_task(client.keep_reading())
    try:
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def piped(address: str, *lines: str, arguments: tuple[str, ...] = ()) -> TerminalClient:
    """The client after it has been given these lines and has left."""
    async with terminal(address, *arguments) as client:
        client.type(*lines)
        await client.end()
    return client


class Person:
    """Somebody at a real terminal, with the client in it; `sees` is all that was on the screen."""

    def __init__(self, process: Process, keyboard: int) -> None:
        self.process = process
        self.sees = ""
        self._keyboard = keyboard
        self._whole = b""
        asyncio.get_running_loop().add_reader(keyboard, self._look)

    def _look(self) -> None:
        try:
            piece = os.read(self._keyboard, 65536)
        except OSError:  # Linux: the other side has gone
            piece = b""
        if not piece:
            self.leave()
        self._whole += piece
        self.sees = self._whole.decode(errors="replace")

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._keyboard, text.encode())

    def leave(self) -> None:
        """Look no more."""
        asyncio.get_running_loop().remove_reader(self._keyboard)

    async def sees_that(self, text: str) -> None:
        """Return when that is on the screen."""
        try:
            await eventually(lambda: text in self.sees, 10)
        except AssertionError as error:
            raise AssertionError(repr(self.sees)) from error

    async def ended(self) -> int:
        """The exit code."""
        async with asyncio.timeout(10):
            return await self.process.wait()


@asynccontextmanager
async def person_at(address: str, *arguments: str) -> AsyncGenerator[Person, None]:
    """Somebody with the client in a terminal of its own, where Ctrl-C is a key."""
    keyboard, device = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "terminal", "--url", address, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=device,
        stdout=device,
        stderr=device,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(device)
    person = Person(process, keyboard)
    try:
        yield person
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        person.leave()
        os.close(keyboard)


class ServiceProgram:
    """`python -m api` on one database and one port, to be killed and started again."""

    def __init__(self, database_url: str, directory: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        self._process: Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        with (self._directory / "service.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "api", cwd=self._directory, env=self._environment, stdout=log, stderr=STDOUT
            )
        await eventually(self._is_ready, 30)

    async def kill(self) -> None:
        """As the kernel does when memory runs out."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """As an operator does."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(30):
            await self._process.wait()

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self._directory / "service.log").read_text()
        async with httpx2.AsyncClient(base_url=self.address) as http:
            try:
                return (await http.get("/livez")).status_code == 200
            except httpx2.TransportError:
                return False


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


async def stored(address: str, session_id: str) -> list[tuple[str, str]]:
    """Role and text of a session's messages, oldest first."""
    async with httpx2.AsyncClient(base_url=address) as http:
        items = (await http.get(f"/api/sessions/{session_id}/messages")).raise_for_status().json()["items"]
    return [(item["role"], item["content"]) for item in reversed(items)]


async def new_session(address: str, **fields: object) -> str:
    """The id of a session that somebody else began."""
    async with httpx2.AsyncClient(base_url=address) as http:
        created: str = (await http.post("/api/sessions", json=fields)).raise_for_status().json()["id"]
        return created
