"""Sessions over REST, also behind the door called conversations."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer, Body, Controls, Flag, Metadata, Name, NotNull, Text
from api.schemas.pages import Page
from api.schemas.tools import ToolGrants
from db.records import SessionRecord


class SessionFields(Body):
    """What can be set of a session; null clears."""

    persona_id: UUID | None = Field(None, description="Who answers; null for a plain model without a persona.")
    title: Annotated[Text, Field(max_length=200)] | None = None
    pinned: Annotated[Flag, NotNull] = False
    connection: Name | None = Field(None, description="The model server to ask; null leaves it to the persona.")
    model: Name | None = None
    controls: Controls | None = None
    tools: ToolGrants | None = Field(None, description="Goes before what the persona says; null for nothing.")
    metadata: Metadata | None = Field(None, description="Your own notes, at most 16 KiB; null for none.")

    def changes(self) -> dict[str, Any]:
        """The record's fields that the client sent."""
        given = self.given()
        if self.tools is not None:
            given["tools"] = self.tools.model_dump(exclude_unset=True)
        return given


class SessionCreate(SessionFields):
    """A new session. What its persona says first becomes its first message.

    Without `persona_id`, the default persona answers, if there is one; null means that none does.
    """


class SessionUpdate(SessionFields):
    """The fields to change; those left out stay as they are."""

    active_message_id: Annotated[UUID | None, NotNull] = Field(
        None, description="A message whose branch is to be the active one: the newest branch that runs through it."
    )


class Session(Answer):
    """A chat thread. A conversation is the same thing."""

    id: UUID
    persona_id: UUID | None
    title: str | None
    pinned: bool
    connection: str | None
    model: str | None
    controls: dict[str, Any]
    tools: dict[str, Any]
    metadata: dict[str, Any]
    active_message_id: UUID | None = Field(description="The message with which the active branch ends.")
    version: int = Field(description="Counts changes of what can be set; also the ETag.")
    seq: int = Field(description="The newest position of the session's journal.")
    active_run_id: UUID | None = Field(description="The run that is being answered now.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: SessionRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            persona_id=record.persona_id,
            title=record.title,
            pinned=record.pinned,
            connection=record.connection,
            model=record.model,
            controls=record.controls,
            tools=record.tools,
            metadata=record.metadata,
            active_message_id=record.active_leaf_id,
            version=record.version,
            seq=record.last_seq,
            active_run_id=record.active_run_id,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class SessionFork(Body):
    """How a session goes on in another one."""

    message_id: UUID | None = Field(None, description="The last message to be copied; the newest one if left out.")
    title: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="The old one's if left out."
    )


class SessionPage(Page[Session]):
    """Chat threads, newest first."""
