"""What is found in the history."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer
from api.schemas.pages import Page
from db.records import MessageRole
from services.search import Hit


class ExcerptPiece(Answer):
    """A part of an excerpt."""

    text: str
    is_match: bool = Field(description="It is what was sought.")


class FoundMessage(Answer):
    """A message that was found."""

    message_id: UUID
    session_id: UUID
    conversation_id: UUID = Field(description="The same as `session_id`.")
    session_title: str | None
    role: MessageRole
    created_at: datetime
    excerpt: list[ExcerptPiece] = Field(description="The surroundings of the first place, in order: plain text.")

    @classmethod
    def of(cls, hit: Hit) -> Self:
        """What a client sees of it."""
        message = hit.message
        return cls(
            message_id=message.id,
            session_id=message.session_id,
            conversation_id=message.session_id,
            session_title=message.session_title,
            role=message.role,
            created_at=message.created_at,
            excerpt=[ExcerptPiece(text=piece.text, is_match=piece.is_match) for piece in hit.excerpt],
        )


class FoundMessages(Page[FoundMessage]):
    """Messages that were found, newest first."""
