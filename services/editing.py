"""Changing what was said afterwards: notes and imports that no run has made, corrections, deletions."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from db.ids import MessageId, SessionId, UserId, new_id
from db.records import MessageRecord, MessageRole
from db.stores.editing import Changed, EditingStore, MessageInUse, NewMessage, NoSuchMessage, NoSuchParent
from db.stores.events import NewEvent
from db.stores.messages import MessageStore, Siblings
from services.audit import AuditLog
from services.context.tokens import TokenCounter
from services.errors import InvalidRequest, NotFound, SessionBusy
from services.runs.events import SessionUpdated, encode, timestamp
from services.runs.journal import Journal

T = TypeVar("T")


class MessageEditor:
    """Adds, changes and deletes messages; the context follows, and the session's readers are told."""

    def __init__(
        self,
        store: EditingStore,
        messages: MessageStore,
        tokens: TokenCounter,
        journal: Journal,
        audit: AuditLog,
        *,
        message_bytes: int,
    ) -> None:
        self._store = store
        self._messages = messages
        self._tokens = tokens
        self._journal = journal
        self._audit = audit
        self._message_bytes = message_bytes

    async def add(
        self,
        owner_id: UserId,
        session_id: SessionId,
        *,
        role: MessageRole,
        content: str,
        parent_id: MessageId | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[MessageRecord, Siblings]:
        """Add a message that nobody is to answer, by default after the newest one of the active branch.

        Raises `NotFound`, `InvalidRequest`, and `SessionBusy` while a reply is in the making.
        """
        new = NewMessage(
            MessageId(new_id()),
            session_id,
            parent_id,
            role,
            self._checked(content),
            await self._tokens.count(content),
            dict(metadata or {}),
        )
        announce = _Announcement(new.id, "added")
        return await self._placed(self._shown(await _translated(self._store.add(new, owner_id, announce)), announce))

    async def edit(
        self, owner_id: UserId, message_id: MessageId, changes: Mapping[str, Any]
    ) -> tuple[MessageRecord, Siblings]:
        """Change `content` or `metadata`, as far as they are named.

        Raises `NotFound`, `InvalidRequest`, and `SessionBusy` if the message is being answered or made.
        """
        content: str | None = changes.get("content")
        counted = None if content is None else (self._checked(content), await self._tokens.count(content))
        metadata = dict(changes["metadata"] or {}) if "metadata" in changes else None
        announce = _Announcement(message_id, "edited")
        editing = self._store.edit(message_id, owner_id, content=counted, metadata=metadata, announce=announce)
        return await self._placed(self._shown(await _translated(editing), announce))

    async def delete(self, owner_id: UserId, message_id: MessageId) -> None:
        """Delete a message; what followed it follows the one before it. Raises `NotFound`, `SessionBusy`."""
        announce = _Announcement(message_id, "deleted")
        self._shown(await _translated(self._store.delete(message_id, owner_id, announce)), announce)
        await self._audit.note(owner_id, "message.delete", message_id)

    def _checked(self, content: str) -> str:
        if not content.strip():
            raise InvalidRequest("A message needs some text.", field="content")
        if len(content.encode()) > self._message_bytes:
            raise InvalidRequest(f"A message has at most {self._message_bytes} bytes.", field="content")
        return content

    async def _placed(self, message: MessageRecord) -> tuple[MessageRecord, Siblings]:
        """The message, and where it stands among those that follow the same one."""
        siblings = await self._messages.siblings(message.session_id, [message.id])
        if message.id not in siblings:
            raise NotFound("The message was deleted meanwhile.")
        return message, siblings[message.id]

    def _shown(self, changed: Changed, announce: "_Announcement") -> MessageRecord:
        assert announce.event is not None
        self._journal.show(changed.message.session_id, None, changed.seq, [announce.event])
        return changed.message


class _Announcement:
    """The event that tells which message was changed, and where the active branch ends if that has moved."""

    def __init__(self, message_id: MessageId, what: str) -> None:
        self.event: NewEvent | None = None
        self._message_id = message_id
        self._what = what

    def __call__(self, leaf: MessageId | None, moved: bool) -> NewEvent:
        changes: dict[str, Any] = {"changed_messages": {str(self._message_id): self._what}}
        if moved:
            changes["active_message_id"] = leaf and str(leaf)
        self.event = encode(SessionUpdated(changes), None, timestamp())
        return self.event


async def _translated(change: Awaitable[T]) -> T:
    try:
        return await change
    except NoSuchMessage as error:
        raise NotFound("There is no message or session with that id.") from error
    except NoSuchParent as error:
        raise NotFound("There is no message with that id in this session.", field="parent_id") from error
    except MessageInUse as error:
        raise SessionBusy("A reply is in the making that needs this message.") from error
