"""Going on from any message in a session of its own."""

from db.ids import FileId, MessageId, SessionId, UserId, new_id
from db.records import SessionRecord
from db.stores.forks import ForkStore, NoSuchFork
from db.stores.sessions import SessionStore
from services.errors import NotFound, no_session
from services.files.service import FileService


class ForkService:
    """Forks the sessions of an owner."""

    def __init__(self, forks: ForkStore, sessions: SessionStore, files: FileService) -> None:
        self._forks = forks
        self._sessions = sessions
        self._files = files

    async def fork(
        self, owner_id: UserId, session_id: SessionId, *, message_id: MessageId | None, title: str | None
    ) -> SessionRecord:
        """A new session with everything that was said up to a message, or in the whole active branch.

        It has the settings of the old one, the summaries of its context, what modules remember of that past, and copies
        of the files that were there. Its runs and events are its own. All of it or nothing. Raises `NotFound`.
        """
        fork_id = SessionId(new_id())
        try:
            forked = await self._forks.fork(session_id, owner_id, fork_id, message_id=message_id, title=title)
        except NoSuchFork as error:
            if await self._sessions.get(session_id, owner_id) is None:
                raise no_session() from error
            raise NotFound("There is no message with that id in this session.", field="message_id") from error
        try:
            await self._copy_files(owner_id, session_id, fork_id)
        except BaseException:
            async with self._files.going_with(owner_id, fork_id):
                await self._sessions.delete(fork_id, owner_id, version=None)
            raise
        return forked

    async def _copy_files(self, owner_id: UserId, session_id: SessionId, fork_id: SessionId) -> None:
        copies: dict[FileId, FileId] = {}
        for file_id in await self._forks.files_of(session_id, fork_id):
            try:
                copies[file_id] = (await self._files.copy(owner_id, file_id, source=session_id, target=fork_id)).id
            except NotFound:
                continue  # deleted in this moment; messages keep its name
        if copies:
            await self._forks.refer_to(fork_id, copies)
