"""How a file comes in: as bytes from a stranger, to become one that is kept."""

from collections.abc import AsyncIterable
from dataclasses import dataclass

from db.ids import FileId, SessionId, UserId, new_id
from db.records import FileRecord
from db.stores.files import FileStore, NewFile, TooManyBytes, TooManyFiles
from services.documents.kinds import Kind, kind_of
from services.documents.names import clean_name
from services.documents.reader import DocumentReader, Unread
from services.errors import Conflict, InvalidRequest, no_session
from services.files.readings import WAIT
from services.files.vault import Draft, Vault
from services.images import UnusableImage


@dataclass(frozen=True, slots=True)
class FileLimits:
    """How much of files is too much."""

    bytes: int
    per_session: int
    bytes_per_user: int


class Intake:
    """Takes files in. What it has taken waits to be read, if there is anything to read in it."""

    def __init__(self, files: FileStore, vault: Vault, reader: DocumentReader, limits: FileLimits) -> None:
        self._files = files
        self._vault = vault
        self._reader = reader
        self._limits = limits

    async def take(
        self, owner_id: UserId, session_id: SessionId, name: str, pieces: AsyncIterable[bytes]
    ) -> FileRecord:
        """Receive a file and keep it; see `FileService.upload`. Whatever breaks this off, nothing is left for good."""
        await self._check_room(owner_id, session_id)
        async with self._vault.draft() as draft:
            await self._vault.receive(draft, pieces, most=self._limits.bytes)
            if not draft.size:
                raise InvalidRequest("The file is empty.", field="file")
            return await self._keep(owner_id, session_id, clean_name(name), draft)

    async def _check_room(self, owner_id: UserId, session_id: SessionId) -> None:
        """Before anything is taken in; whether it has room is decided when it is stored."""
        room = await self._files.room(session_id, owner_id)
        if room is None:
            raise no_session()
        files, bytes = room
        if files >= self._limits.per_session:
            raise self._too_many_files()
        if bytes >= self._limits.bytes_per_user:
            raise self._too_many_bytes()

    async def _keep(self, owner_id: UserId, session_id: SessionId, name: str, draft: Draft) -> FileRecord:
        kind = kind_of(draft.head, name)
        if kind.reading == "image":
            return await self._keep_picture(owner_id, session_id, name, draft, kind)
        file_id = FileId(new_id())
        await self._vault.keep(file_id, draft)
        state = "none" if kind.reading == "none" else "waiting"
        return await self._add(
            NewFile(file_id, session_id, owner_id, name, kind.media_type, draft.size, draft.sha256, state)
        )

    async def _keep_picture(
        self, owner_id: UserId, session_id: SessionId, name: str, draft: Draft, kind: Kind
    ) -> FileRecord:
        """Nothing of it is kept as it came."""
        async with self._reader.place():
            painted = await self._reader.paint(draft.path, kind)
        if isinstance(painted, Unread):
            raise UnusableImage(painted.reason, field="file")
        file_id = FileId(new_id())
        sha256 = await self._vault.keep_bytes(file_id, painted.data)
        if painted.view is not None:
            await self._vault.keep_bytes(file_id, painted.view, is_view=True)
        return await self._add(
            NewFile(
                *(file_id, session_id, owner_id, name, painted.media_type, len(painted.data), sha256, "none"),
                painted.width,
                painted.height,
                None if painted.view is None else painted.view_type,
            )
        )

    async def _add(self, new: NewFile) -> FileRecord:
        """The row, which makes it a file. Without one, its bytes go again; should we die now, they are swept later."""
        try:
            file = await self._files.add(
                new,
                per_session=self._limits.per_session,
                bytes_per_owner=self._limits.bytes_per_user,
                patience=WAIT,
            )
        except TooManyFiles as error:
            await self._vault.remove(new.id)
            raise self._too_many_files() from error
        except TooManyBytes as error:
            await self._vault.remove(new.id)
            raise self._too_many_bytes() from error
        if file is None:
            await self._vault.remove(new.id)
            raise no_session()
        return file

    def _too_many_files(self) -> Conflict:
        return Conflict(f"A session has at most {self._limits.per_session} files.", limit=self._limits.per_session)

    def _too_many_bytes(self) -> Conflict:
        limit = self._limits.bytes_per_user
        return Conflict(f"Your files have at most {limit} bytes together; there is no room for more.", limit=limit)
