"""Has documents read and pictures painted, each in a process of its own that is ended with its job."""

import asyncio
import json
import logging
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import services
from services.documents.kinds import Kind
from services.documents.pictures import Picture
from services.documents.worker import ANSWER, PROOF
from services.hardening import Hardening, Program, harden

_log = logging.getLogger(__name__)

_PIECE = 262_144
_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What reading one file may use up, and how many are read at once."""

    memory_bytes: int
    cpu_seconds: int
    wall_seconds: float
    characters: int
    unpacked_bytes: int
    pixels: int
    picture_bytes: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Text:
    """What is written in a document. `note` says what is to be known of the reading."""

    media_type: str
    text: str
    note: str | None


@dataclass(frozen=True, slots=True)
class NoText:
    """There is nothing to read in such a file."""

    media_type: str


@dataclass(frozen=True, slots=True)
class Unread:
    """The file could not be read; `reason` is for people."""

    reason: str


class DocumentReader:
    """Reads files that may be hostile. Further ones than `at_once` wait."""

    def __init__(self, limits: ReaderLimits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.at_once)
        self._resources = AsyncExitStack()
        self._starting: asyncio.Task[Path] | None = None
        self.hardening: Hardening | None = None
        """How far the processes are shut in; None before the first."""

    async def __aenter__(self) -> "DocumentReader":
        return self

    async def __aexit__(self, *_: object) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        await self._resources.aclose()

    @asynccontextmanager
    async def place(self) -> AsyncGenerator["DocumentReader", None]:
        """Wait for one's turn."""
        async with self._places:
            yield self

    async def read(self, path: Path, kind: Kind) -> Text | NoText | Unread:
        """The text of a file that has any; never raises for what the file is."""
        match await self._ask(path, kind):
            case Unread() as unread:
                return unread
            case {"failed": str(reason)}, _:
                return Unread(reason)
            case {"has_text": True} as head, [blob]:
                return Text(head["media_type"] or kind.media_type, blob.decode(), head["note"])
            case head, _:
                return NoText(head["media_type"])

    async def paint(self, path: Path, kind: Kind) -> Picture | Unread:
        """The picture painted anew; never raises for what the file is."""
        match await self._ask(path, kind):
            case Unread() as unread:
                return unread
            case {"failed": str(reason)}, _:
                return Unread(reason)
            case head, [data, view]:
                size = head["width"], head["height"]
                return Picture(head["media_type"], *size, data, head["view_type"], view or None)
            case _:
                return Unread(_broken_off())

    async def _ask(self, path: Path, kind: Kind) -> Unread | tuple[dict[str, Any], list[bytes]]:
        limits = self._limits
        job = {
            "reading": kind.reading,
            "memory_bytes": limits.memory_bytes,
            "cpu_seconds": limits.cpu_seconds,
            "characters": limits.characters,
            "unpacked_bytes": limits.unpacked_bytes,
            "pixels": limits.pixels,
            "bytes": limits.picture_bytes,
        }
        try:
            async with asyncio.timeout(limits.wall_seconds):
                said = await self._said(path, json.dumps(job))
        except TimeoutError:
            return Unread(f"Reading it took longer than {limits.wall_seconds:g} seconds.")
        return _taken_apart(said)

    async def _said(self, path: Path, job: str) -> bytes:
        """All that the process answers, as far as that is not too much. It has ended when this returns or raises."""
        command = await self._command()
        with await asyncio.to_thread(path.open, "rb") as file:
            process = await asyncio.create_subprocess_exec(
                command,
                *_words(),
                job,
                env={},
                stdin=file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_PIECE,
            )
        try:
            assert process.stdout is not None
            return await _bounded(process.stdout, self._most_bytes())
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _most_bytes(self) -> int:
        # A character has at most four bytes; of a picture there are two.
        return _HEAD + max(4 * self._limits.characters, 2 * self._limits.picture_bytes)

    async def _command(self) -> Path:
        # A task of its own: whoever asks first may be cancelled, and others wait for the same start.
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> Path:
        directory = tempfile.mkdtemp(prefix="colloquy-documents-")
        self._resources.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, ignore_errors=True)
        self.hardening, command = await harden(python(), Path(directory))
        _log.info("documents: processes that read them are %s", self.hardening)
        return command


def python() -> Program:
    """This Python, with the packages that reading needs and none of the service's own files."""
    binary = Path(sys.executable).resolve()
    names = (sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *services.__path__)
    # The last tells where the libraries of a Python are that is no part of the system.
    places = {Path(name).absolute() for name in (*names, "/etc/ld.so.cache")}
    # Sorted, so that what lies within another is mounted after it.
    sees = tuple(sorted(place for place in places if place.exists()))
    return Program(binary, inside=binary, sees=sees, proof=(*_words(), PROOF), answer=ANSWER)


def _words() -> tuple[str, ...]:
    """How Python is to begin: with nothing of the user's or the environment's."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(services.__path__[0]).parent)]
    begin = f"import sys; sys.path += {paths!r}; from services.documents.worker import main; main(sys.argv[1])"
    return "-I", "-S", "-B", "-c", begin


async def _bounded(stream: asyncio.StreamReader, most: int) -> bytes:
    """All of it; nothing if it is more than `most` bytes."""
    pieces: list[bytes] = []
    while piece := await stream.read(_PIECE):
        pieces.append(piece)
        most -= len(piece)
        if most < 0:
            return b""
    return b"".join(pieces)


def _taken_apart(said: bytes) -> Unread | tuple[dict[str, Any], list[bytes]]:
    """The head of an answer and its blobs. A process that died in mid-sentence has said nothing."""
    line, _, rest = said.partition(b"\n")
    try:
        head: dict[str, Any] = json.loads(line)
        sizes: list[int] = head.get("sizes", [])
    except ValueError:
        return Unread(_broken_off())
    if sum(sizes) != len(rest):
        return Unread(_broken_off())
    blobs: list[bytes] = []
    for size in sizes:
        blobs.append(rest[:size])
        rest = rest[size:]
    return head, blobs


def _broken_off() -> str:
    return "Reading it takes more memory or time than is allowed, or broke off: the file may be damaged."
