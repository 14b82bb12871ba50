"""The history over REST."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, model_validator

from api.schemas.model import Answer, Body, Metadata, NotNull, Text
from api.schemas.pages import Page, cursor_of
from db.records import MessageRecord, MessageRole
from db.stores.messages import Siblings
from services.messages import HistoryPage


class MessageCreate(Body):
    """A message that no run makes."""

    session_id: UUID | None = None
    conversation_id: UUID | None = Field(None, description="The same as `session_id`; give either.")
    role: MessageRole
    content: Text
    parent_id: UUID | None = Field(None, description="What it follows; otherwise the newest of the active branch.")
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _names_its_session(self) -> Self:
        if len({self.session_id, self.conversation_id} - {None}) != 1:
            raise ValueError("give session_id or conversation_id")
        return self

    @property
    def session(self) -> UUID:
        """The session, whatever it was called."""
        named = self.session_id or self.conversation_id
        assert named is not None, "it was validated"
        return named


class MessageUpdate(Body):
    """The fields to change; those left out stay as they are."""

    content: Annotated[Text, NotNull] = ""
    metadata: Metadata | None = Field(None, description="Null for none.")


class MessageSiblings(Answer):
    """The messages that follow the same message as this one: each begins another branch."""

    count: int = Field(description="How many there are, this one among them.")
    index: int = Field(description="Which of them this one is; 1 is the oldest.")
    previous: UUID | None
    next: UUID | None


class Message(Answer):
    """One entry of the history."""

    id: UUID
    session_id: UUID
    conversation_id: UUID = Field(description="The same as `session_id`.")
    parent_id: UUID | None = Field(description="The message before it in its branch.")
    run_id: UUID | None = Field(description="The run that it belongs to.")
    role: MessageRole
    content: str
    parts: list[dict[str, Any]] = Field(description="Text, thinking, tool calls and files in their true order.")
    token_count: int
    finish_reason: str | None = Field(description="Why a reply ended; an interrupted one keeps what was shown.")
    provider: str | None
    model: str | None
    metadata: dict[str, Any]
    siblings: MessageSiblings
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: MessageRecord, siblings: Siblings) -> Self:
        """What a client sees of the record, and of where it stands among its siblings."""
        return cls(
            id=record.id,
            session_id=record.session_id,
            conversation_id=record.session_id,
            parent_id=record.parent_id,
            run_id=record.run_id,
            role=record.role,
            content=record.content,
            parts=record.parts,
            token_count=record.token_count,
            finish_reason=record.finish_reason,
            provider=record.provider,
            model=record.model,
            metadata=record.metadata,
            siblings=MessageSiblings(
                count=siblings.count, index=siblings.index, previous=siblings.previous, next=siblings.next
            ),
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class History(Page[Message]):
    """Messages of a branch, newest first, and where to read on."""

    seq: int = Field(description="Attach with `after` set to this: the events that come tell what is not here.")
    epoch: UUID = Field(description="Positions mean something only within their epoch.")

    @classmethod
    def of(cls, page: HistoryPage) -> Self:
        """What a client sees of the page."""
        items = [Message.of(message, page.siblings[message.id]) for message in page.messages]
        return cls(items=items, next_cursor=cursor_of(page.next), seq=page.seq, epoch=page.epoch)
