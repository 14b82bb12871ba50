"""The full history, as people read it."""

from dataclasses import dataclass
from uuid import UUID

from db.ids import MessageId, SessionId, UserId
from db.records import MessageRecord
from db.stores.messages import MessageStore
from services.chat import ChatService
from services.errors import NotFound


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages, newest first. The events after `seq` (of that `epoch`) tell what happened since it was read."""

    messages: list[MessageRecord]
    next: MessageId | None
    seq: int
    epoch: UUID


class MessageService:
    """Reads what was said."""

    def __init__(self, messages: MessageStore, chat: ChatService) -> None:
        self._messages = messages
        self._epoch = chat.epoch

    async def page(
        self, owner_id: UserId, session_id: SessionId, *, before: MessageId | None, limit: int
    ) -> HistoryPage:
        """Up to `limit` messages of the session's active branch, before the message `before`. Raises `NotFound`."""
        snapshot = await self._messages.page(session_id, owner_id, before=before, limit=limit)
        if snapshot is None:
            raise NotFound("There is no session with that id.")
        following = snapshot.messages[-1].id if snapshot.has_more else None
        return HistoryPage(snapshot.messages, following, snapshot.seq, self._epoch)

    async def get(self, owner_id: UserId, message_id: MessageId) -> MessageRecord:
        """One message. Raises `NotFound`."""
        message = await self._messages.get(message_id, owner_id)
        if message is None:
            raise NotFound("There is no message with that id.")
        return message
