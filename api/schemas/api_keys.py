"""API keys and tickets over REST."""

from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import AwareDatetime, Field

from api.schemas.model import Answer, Body, Name
from api.schemas.pages import Page
from db.records import ApiKeyRecord
from services.accounts.caller import Scope

_LAST = datetime(9999, 12, 30, tzinfo=UTC)
"""A day before the end of time, wherever on earth: the database keeps moments in UTC."""


class ApiKeyRequest(Body):
    """A key to be made."""

    name: Name = Field(description="What it is for, so that you know which to delete.", examples=["backup script"])
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)] = Field(
        description="What it allows; no more than you may yourself.", examples=[["read", "chat"]]
    )
    expires_at: Annotated[AwareDatetime, Field(le=_LAST)] | None = Field(
        None, description="Until when; null means until it is deleted."
    )


class ApiKey(Answer):
    """A key, without its text."""

    id: UUID
    name: str
    last_four: str = Field(description="The last characters of its text.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="When it was used last, to the minute.")

    @classmethod
    def of(cls, record: ApiKeyRecord) -> Self:
        """What its owner sees of the record."""
        return cls(
            id=record.id,
            name=record.name,
            last_four=record.last_four,
            scopes=record.scopes,
            created_at=record.created_at,
            expires_at=record.expires_at,
            last_used_at=record.last_used_at,
        )


class NewApiKey(Answer):
    """A key that was just made."""

    key: str = Field(description="Its text. It is told this once: keep it where secrets are kept.")
    api_key: ApiKey


class ApiKeyPage(Page[ApiKey]):
    """Keys, newest first."""


class TicketRequest(Body):
    """Which socket is to be opened."""

    session_id: UUID | None = Field(None, description="The session of `/ws/chat/{session_id}`; null for `/ws/chat`.")


class SocketTicket(Answer):
    """Opens one socket, once: send it as the socket's first frame."""

    ticket: str
    expires_in: float = Field(description="Seconds.")
