"""The full history, as people read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from db.ids import MessageId, SessionId, UserId
from db.records import MessageRecord
from db.stores.messages import MessageStore, Siblings, Snapshot
from services.chat import ChatService
from services.errors import NotFound, no_session


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages, newest first. The events after `seq` (of that `epoch`) tell what happened since it was read."""

    messages: list[MessageRecord]
    siblings: Mapping[MessageId, Siblings]
    next: MessageId | None
    seq: int
    epoch: UUID


class MessageService:
    """Reads what was said."""

    def __init__(self, messages: MessageStore, chat: ChatService) -> None:
        self._messages = messages
        self._epoch = chat.epoch

    async def page(
        self,
        owner_id: UserId,
        session_id: SessionId,
        *,
        before: MessageId | None,
        limit: int,
        branch: MessageId | None = None,
    ) -> HistoryPage:
        """Up to `limit` messages of a branch, before the message `before`.

        The branch is the session's active one, or the one that ends with the message `branch`. Raises `NotFound`.
        """
        snapshot = await self._messages.page(session_id, owner_id, before=before, limit=limit, branch=branch)
        if snapshot and branch and not before and not snapshot.messages:
            raise NotFound("There is no message with that id in this session.", field="branch")
        return await self._page(session_id, snapshot)

    async def page_of_all(
        self, owner_id: UserId, session_id: SessionId, *, before: MessageId | None, limit: int
    ) -> HistoryPage:
        """Up to `limit` messages of all branches of the session, before the message `before`. Raises `NotFound`."""
        snapshot = await self._messages.page_of_all(session_id, owner_id, before=before, limit=limit)
        return await self._page(session_id, snapshot)

    async def get(self, owner_id: UserId, message_id: MessageId) -> tuple[MessageRecord, Siblings]:
        """One message, and where it stands among those that follow the same one. Raises `NotFound`."""
        message = await self._messages.get(message_id, owner_id)
        siblings = message and await self._messages.siblings(message.session_id, [message_id])
        if not message or not siblings:
            raise NotFound("There is no message with that id.")
        return message, siblings[message_id]

    async def _page(self, session_id: SessionId, snapshot: Snapshot | None) -> HistoryPage:
        if snapshot is None:
            raise no_session()
        siblings = await self._messages.siblings(session_id, [message.id for message in snapshot.messages])
        # What was deleted in between is not told of any more.
        messages = [message for message in snapshot.messages if message.id in siblings]
        following = snapshot.messages[-1].id if snapshot.has_more else None
        return HistoryPage(messages, siblings, following, snapshot.seq, self._epoch)
