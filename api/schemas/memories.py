"""Memories over REST."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer
from api.schemas.pages import Page
from db.records import MemoryRecord


class Memory(Answer):
    """Something that a script kept of a session."""

    id: UUID
    session_id: UUID
    content: str
    first_message: int | None = Field(description="The first message that it is about, counted from 0.")
    last_message: int | None
    metadata: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, record: MemoryRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            session_id=record.session_id,
            content=record.content,
            first_message=record.first_message,
            last_message=record.last_message,
            metadata=record.metadata,
            created_at=record.created_at,
        )


class MemoryPage(Page[Memory]):
    """Memories, newest first; of a search, the best first."""
