"""Files of sessions: taken from people, told to models."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from db.ids import FileId, SessionId, UserId, new_id
from db.records import FileRecord
from db.stores.file_texts import FileTextStore
from db.stores.files import FileStore
from services.audit import AuditLog
from services.documents.kinds import FileKind
from services.errors import Conflict, NotFound, no_session
from services.files.intake import Intake
from services.files.readings import Readings
from services.files.vault import Vault

_EXCERPT = 600


class NoText(Conflict):
    """This file has no text."""

    code = "no_text"


@dataclass(frozen=True, slots=True)
class TextSlice:
    """A part of a file's text: `text` begins after `offset` of all its `characters`."""

    file: FileRecord
    text: str
    offset: int

    @property
    def next_offset(self) -> int | None:
        """Where to read on; None at the end."""
        end = self.offset + len(self.text)
        return end if self.text and end < self.file.characters else None


@dataclass(frozen=True, slots=True)
class FileHit:
    """A place in a file that has what was looked for; `text` begins after `offset` characters."""

    file_id: FileId
    name: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class ShownImage:
    """A picture as models look at it: a PNG or JPEG."""

    media_type: str
    data: bytes


class FileService:
    """Keeps the files of an owner's sessions."""

    def __init__(
        self,
        files: FileStore,
        texts: FileTextStore,
        vault: Vault,
        intake: Intake,
        readings: Readings,
        audit: AuditLog,
    ) -> None:
        self._files = files
        self._texts = texts
        self._vault = vault
        self._intake = intake
        self._readings = readings
        self._audit = audit

    # --- for people ------------------------------------------------------------------------------------------------

    async def upload(
        self, owner_id: UserId, session_id: SessionId, name: str, pieces: AsyncIterable[bytes]
    ) -> FileRecord:
        """Take a file in, piece by piece. Pictures are painted anew; a document has been read, or has failed to be.

        Raises `NotFound`, `FileTooLarge`, `InvalidRequest` if it is empty, `UnusableImage`, and `Conflict` if there is
        no room for it.
        """
        file = await self._intake.take(owner_id, session_id, name, pieces)
        if file.text_state == "waiting":
            return await self._readings.read(file.id) or await self.get(owner_id, session_id, file.id)
        return file

    async def page(
        self, owner_id: UserId, session_id: SessionId, *, before: FileId | None, limit: int
    ) -> tuple[list[FileRecord], FileId | None]:
        """Up to `limit` files, newest first, and where the next page begins if there is one. Raises `NotFound`."""
        if await self._files.room(session_id, owner_id) is None:
            raise no_session()
        found = await self._files.page(session_id, owner_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def has_any(self, owner_id: UserId, session_id: SessionId) -> bool:
        """Whether there are files in the session; none are in one that is not there."""
        return bool(await self._files.page(session_id, owner_id, before=None, limit=1))

    async def get(self, owner_id: UserId, session_id: SessionId, file_id: FileId) -> FileRecord:
        """One file. Raises `NotFound`."""
        file = await self._files.get(file_id, session_id, owner_id)
        if file is None:
            raise _no_file(file_id)
        return file

    async def bytes_of(self, owner_id: UserId, session_id: SessionId, file_id: FileId) -> tuple[FileRecord, Path]:
        """One file, and where its bytes are. Raises `NotFound`."""
        file = await self.get(owner_id, session_id, file_id)
        path = self._vault.path(file_id)
        if not await asyncio.to_thread(path.is_file):
            raise NotFound("The bytes of that file are missing.")
        return file, path

    async def delete(self, owner_id: UserId, session_id: SessionId, file_id: FileId) -> None:
        """Delete a file with its text; messages keep its name. Raises `NotFound`."""
        if not await self._files.delete(file_id, session_id, owner_id):
            raise _no_file(file_id)
        await self._vault.remove(file_id)
        await self._audit.note(owner_id, "file.delete", file_id, session=session_id)

    async def copy(self, owner_id: UserId, file_id: FileId, *, source: SessionId, target: SessionId) -> FileRecord:
        """Put the file of one session into another, too; limits do not matter. Raises `NotFound`."""
        await self.bytes_of(owner_id, source, file_id)
        copy_id = FileId(new_id())
        await self._vault.copy(file_id, copy_id)
        copied = await self._files.copy(file_id, copy_id, owner_id, source=source, target=target)
        if copied is None:
            await self._vault.remove(copy_id)
            raise no_session()
        return copied

    @asynccontextmanager
    async def going_with(self, owner_id: UserId, session_id: SessionId) -> AsyncGenerator[None, None]:
        """Around the deletion of a session: if that succeeds, the bytes of its files go, too."""
        file_ids = await self._files.ids_of(session_id, owner_id)
        yield
        await self._vault.remove(*file_ids)

    # --- for conversations -----------------------------------------------------------------------------------------

    async def attachable(self, owner_id: UserId, session_id: SessionId, file_ids: Sequence[FileId]) -> list[FileRecord]:
        """These files, each once and in their order. Raises `NotFound`, naming the first that is not there."""
        found = await self._files.among(file_ids, session_id, owner_id)
        for position, file_id in enumerate(file_ids):
            if file_id not in found:
                raise _no_file(file_id, field=("attachments", position))
        return [found[file_id] for file_id in dict.fromkeys(file_ids)]

    async def present(self, owner_id: UserId, session_id: SessionId, file_ids: Sequence[FileId]) -> frozenset[FileId]:
        """Those of these files that are still there."""
        return frozenset(await self._files.among(file_ids, session_id, owner_id))

    async def beginnings(
        self, owner_id: UserId, session_id: SessionId, wanted: Mapping[FileId, int]
    ) -> dict[FileId, str]:
        """The beginnings of these files' texts, as many characters as are wanted of each; not of files without text."""
        texts: dict[FileId, str] = {}
        for passage in await self._texts.beginnings(session_id, owner_id, wanted):
            texts[passage.file_id] = texts.get(passage.file_id, "") + passage.content
        return {file_id: text[: wanted[file_id]] for file_id, text in texts.items()}

    async def read_text(
        self, owner_id: UserId, session_id: SessionId, file_id: FileId, *, offset: int, limit: int
    ) -> TextSlice:
        """Up to `limit` characters of the file's text from `offset` on. Raises `NotFound`, `NoText`."""
        file = await self.get(owner_id, session_id, file_id)
        if file.text_state != "ready":
            raise _no_text(file)
        passages = await self._texts.passages(file_id, session_id, owner_id, offset=offset, limit=limit)
        if not passages:
            return TextSlice(file, "", min(offset, file.characters))
        begin = offset - passages[0].start
        text = "".join(passage.content for passage in passages)[begin : begin + limit]
        return TextSlice(file, text, offset)

    async def search(self, owner_id: UserId, session_id: SessionId, q: str, *, limit: int) -> list[FileHit]:
        """Places in the session's files that have `q` or any word of it, the best first. Raises `NotFound`."""
        if await self._files.room(session_id, owner_id) is None:
            raise no_session()
        found = await self._texts.search(session_id, owner_id, q, limit=limit)
        return [_hit(one.file_id, one.name, one.start, one.content, q) for one in found]

    async def image_bytes(self, owner_id: UserId, session_id: SessionId, file_id: FileId) -> ShownImage:
        """A picture for a model to look at. Raises `NotFound`, also if it is no picture."""
        file = await self.get(owner_id, session_id, file_id)
        if file.width is None:
            raise NotFound(f"The file {file_id} is no picture.")
        path = self._vault.path(file_id) if file.view_type is None else self._vault.view_path(file_id)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError as error:
            raise NotFound("The bytes of that file are missing.") from error
        return ShownImage(file.view_type or file.media_type, data)


def kind_of_file(file: FileRecord) -> FileKind:
    """What can be done with it: look at it, read it, or neither."""
    if file.width is not None:
        return "image"
    return "other" if file.text_state == "none" else "document"


def _hit(file_id: FileId, name: str, start: int, content: str, q: str) -> FileHit:
    """The passage, or the part of it where the first of the words stands."""
    places = [place for word in (q, *q.split()) if (place := content.lower().find(word.lower())) >= 0]
    begin = max(0, places[0] - _EXCERPT // 3) if places else 0
    return FileHit(file_id, name, start + begin, content[begin : begin + _EXCERPT])


def _no_file(file_id: FileId, **details: object) -> NotFound:
    return NotFound(f"There is no file {file_id} in this session.", **details)


def _no_text(file: FileRecord) -> NoText:
    match file.text_state:
        case "waiting":
            return NoText("This file has not been read yet.", state=file.text_state)
        case "failed":
            return NoText(f"This file could not be read: {file.text_note}", state=file.text_state)
        case _:
            return NoText(state=file.text_state)
