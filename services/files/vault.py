"""Bytes of files on disk, under ids. What a file is called and whose it is stands in the database."""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

from db.ids import FileId
from services.documents.kinds import HEAD
from services.errors import CallerError

_VIEW = ".view"
_DRAFTS = "drafts"


class FileTooLarge(CallerError):
    """The file is larger than this service takes."""

    code = "body_too_large"


class Draft:
    """A file that is being received. It goes with its context unless it is kept."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = 0
        self.head = b""
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        """Add a piece. Blocks."""
        self._file.write(piece)
        self.size += len(piece)
        self._digest.update(piece)
        if len(self.head) < HEAD:
            self.head += piece[: HEAD - len(self.head)]

    def finish(self) -> None:
        """All of it has been written. Blocks until it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Leave nothing of it where it was written. Blocks."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Vault:
    """Keeps bytes: whole or not at all, and readable by nobody else."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def draft(self) -> AsyncGenerator[Draft, None]:
        """An empty file to be written."""
        draft = await asyncio.to_thread(_begin, self._directory / _DRAFTS / str(uuid4()))
        try:
            yield draft
        finally:
            await asyncio.to_thread(draft.discard)

    async def receive(self, draft: Draft, pieces: AsyncIterable[bytes], *, most: int) -> None:
        """Write all the pieces, one at a time. Raises `FileTooLarge` as soon as it is."""
        async for piece in pieces:
            if draft.size + len(piece) > most:
                raise FileTooLarge(f"A file has at most {most} bytes.", limit=most)
            await asyncio.to_thread(draft.write, piece)
        await asyncio.to_thread(draft.finish)

    async def keep(self, file_id: FileId, draft: Draft) -> None:
        """Put what was received in its place, for good."""
        await asyncio.to_thread(_move, draft.path, self.path(file_id))

    async def keep_bytes(self, file_id: FileId, data: bytes, *, is_view: bool = False) -> str:
        """Keep these bytes and tell their SHA-256; as a view, they are the smaller picture that goes with a picture."""
        place = self.view_path(file_id) if is_view else self.path(file_id)
        async with self.draft() as draft:
            await asyncio.to_thread(draft.write, data)
            await asyncio.to_thread(draft.finish)
            await asyncio.to_thread(_move, draft.path, place)
            return draft.sha256

    async def copy(self, file_id: FileId, copy_id: FileId) -> None:
        """Give the same bytes a second id. Raises `FileNotFoundError`."""
        await asyncio.to_thread(_link, self.path(file_id), self.path(copy_id))
        if await asyncio.to_thread(self.view_path(file_id).exists):
            await asyncio.to_thread(_link, self.view_path(file_id), self.view_path(copy_id))

    async def remove(self, *file_ids: FileId) -> None:
        """Let go of the bytes of these files, as far as they are there."""
        await asyncio.to_thread(self._remove, file_ids)

    def path(self, file_id: FileId) -> Path:
        """Where the bytes are, if there are any."""
        # The end of an id is random; its beginning is the time.
        return self._directory / file_id.hex[-2:] / str(file_id)

    def view_path(self, file_id: FileId) -> Path:
        """The same for the smaller picture."""
        return self.path(file_id).with_name(f"{file_id}{_VIEW}")

    async def kept(self, *, older_than: float) -> list[FileId]:
        """The ids of all that has lain here for so many seconds. Drafts that are as old are thrown away."""
        return await asyncio.to_thread(lambda: list(self._kept(time.time() - older_than)))

    def _kept(self, before: float) -> Iterator[FileId]:
        for path in self._directory.glob("*/*"):
            try:
                if path.stat().st_mtime >= before:
                    continue
                if path.parent.name == _DRAFTS:
                    path.unlink()
                elif (file_id := _id_of(path)) is not None:
                    yield file_id
            except FileNotFoundError:
                continue  # somebody else was quicker

    def _remove(self, file_ids: tuple[FileId, ...]) -> None:
        for file_id in file_ids:
            self.path(file_id).unlink(missing_ok=True)
            self.view_path(file_id).unlink(missing_ok=True)


def _begin(path: Path) -> Draft:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Draft(path, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"))


def _move(draft: Path, place: Path) -> None:
    """Durably: after the bytes the name, after that the folders that have it."""
    _make_room(place)
    # Young when it comes here, however long it took to arrive: what is old and in no row is swept away.
    os.utime(draft)
    draft.replace(place)
    _sync(place.parent)


def _make_room(place: Path) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sync(place.parent.parent)


def _link(source: Path, place: Path) -> None:
    _make_room(place)
    try:
        os.link(source, place)  # nothing ever changes the bytes of a file, so both may be one
    except OSError:
        shutil.copyfile(source, place)  # some file systems have no links
        _sync(place)
    os.utime(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id_of(path: Path) -> FileId | None:
    try:
        return FileId(UUID(path.name.removesuffix(_VIEW)))
    except ValueError:
        return None
