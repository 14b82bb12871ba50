"""Sees to it that every document is read once: after its upload, or later if that was broken off."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

from db.errors import DatabaseError
from db.ids import FileId
from db.records import FileRecord
from db.stores.file_texts import FileTextStore, ReadingDone
from services.context.tokens import TokenCounter
from services.documents.kinds import HEAD, Kind, kind_of
from services.documents.reader import DocumentReader, NoText, Text, Unread
from services.files.vault import Vault

_log = logging.getLogger(__name__)

WAIT = 300.0
"""Seconds that a file may wait for its first reading before somebody else may see to it."""

_LOOK_EVERY = 30.0
_ATTEMPTS = 3
_AT_ONCE = 20
_PASSAGE = 2_000
"""Characters of a passage: a page of a book, so that what is found can be shown."""
_NOTHING_WRITTEN = "There is no text in it. It may be a scan: pictures of pages."


class Readings:
    """Reads documents, and what earlier processes left unread. `running` owns the tasks."""

    def __init__(
        self, texts: FileTextStore, vault: Vault, reader: DocumentReader, tokens: TokenCounter, *, seconds: float
    ) -> None:
        """`seconds` are those that one reading can take."""
        self._texts = texts
        self._vault = vault
        self._reader = reader
        self._tokens = tokens
        self._seconds = seconds
        self._tasks: dict[FileId, asyncio.Task[FileRecord | None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Look now and then for what is left unread; on leaving, what is being read is left for later."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            tasks = [looking, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def read(self, file_id: FileId) -> FileRecord | None:
        """Read a file that waits for it; None if it is gone, or somebody else has read it.

        Going away does not stop the reading.
        """
        task = self._tasks.get(file_id)
        if task is None:
            task = self._tasks[file_id] = asyncio.create_task(self._read(file_id))
            task.add_done_callback(lambda done: self._forget(file_id, done))
        return await asyncio.shield(task)

    def _forget(self, file_id: FileId, task: "asyncio.Task[FileRecord | None]") -> None:
        del self._tasks[file_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waited for it may have gone; it is tried again.
            _log.warning("file %s could not be read now: %r", file_id, error)

    async def _look(self) -> None:
        while True:
            try:
                for file_id in await self._texts.left_unread(attempts=_ATTEMPTS, limit=_AT_ONCE):
                    await self.read(file_id)
            except (DatabaseError, OSError) as error:
                _log.warning("could not look for files that were left unread: %s", error)
            await asyncio.sleep(_LOOK_EVERY)

    async def _read(self, file_id: FileId) -> FileRecord | None:
        async with self._reader.place():
            file = await self._texts.begin_reading(file_id, patience=2 * self._seconds + 30)
            if file is None:
                return None
            return await self._texts.end_reading(file_id, await self._done(file))

    async def _done(self, file: FileRecord) -> ReadingDone:
        path = self._vault.path(file.id)
        try:
            kind = await asyncio.to_thread(_kind_of, self._vault, file)
            answer = await self._reader.read(path, kind)
        except FileNotFoundError:
            answer = Unread("Its bytes are missing.")
        match answer:
            case Text(media_type, text, note):
                return await self._as_done(media_type, text, note)
            case NoText(media_type):
                return ReadingDone(media_type, "none", None)
            case Unread(reason):
                return ReadingDone(file.media_type, "failed", reason)

    async def _as_done(self, media_type: str, text: str, note: str | None) -> ReadingDone:
        tokens = await self._tokens.count(text)
        note = note or (None if text.strip() else _NOTHING_WRITTEN)
        return ReadingDone(media_type, "ready", note, list(passages(text)), len(text), tokens)


def passages(text: str) -> Iterator[tuple[int, str]]:
    """The text in pieces, each with the characters before it: cut between lines or words where that is near."""
    start = 0
    while start < len(text):
        end = start + _PASSAGE
        if end < len(text):
            cut = max(text.rfind("\n", start + _PASSAGE // 2, end), text.rfind(" ", start + _PASSAGE // 2, end))
            end = cut + 1 if cut >= 0 else end
        yield start, text[start:end]
        start = end


def _kind_of(vault: Vault, file: FileRecord) -> Kind:
    with vault.path(file.id).open("rb") as opened:
        return kind_of(opened.read(HEAD), file.name)
