"""Personas over REST."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer, Body, Controls, Name, NotNull, Text, at_most
from api.schemas.pages import Page
from db.records import PersonaRecord

Mode = Literal["reactive", "autonomous"]
PersonaName = Annotated[Name, Field(max_length=100, description="Unique among your personas.")]
Template = Annotated[Text, *at_most(65_536)]
FirstMessage = Annotated[Text, *at_most(16_384)]
Description = Annotated[Text, Field(max_length=2_000)]


class PersonaUpdate(Body):
    """The fields to change; those left out stay as they are, null clears."""

    name: Annotated[PersonaName, NotNull] = ""
    description: Description | None = None
    template: Template | None = Field(None, description="The system prompt.")
    mode: Annotated[Mode, NotNull] = Field("reactive", description="`autonomous` is not available yet.")
    first_message: FirstMessage | None = Field(None, description="What the persona says when a session begins.")
    connection: Name | None = Field(None, description="The model server to ask; null for the service's default.")
    model: Name | None = None
    controls: Controls | None = None
    is_active: Annotated[bool, NotNull] = True

    def changes(self) -> dict[str, Any]:
        """The record's fields that the client sent."""
        cleared = {"description": "", "template": ""}
        return {name: cleared.get(name) if value is None else value for name, value in self.given().items()}


class PersonaCreate(PersonaUpdate):
    """A new persona."""

    name: PersonaName  # pyright: ignore[reportGeneralTypeIssues]


class Persona(Answer):
    """A named prompt with its model settings."""

    id: UUID
    name: str
    slug: str
    description: str
    template: str
    mode: Mode
    first_message: str | None
    connection: str | None
    model: str | None
    controls: dict[str, Any]
    is_active: bool
    version: int = Field(description="Counts changes; also the ETag.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: PersonaRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            name=record.name,
            slug=record.slug,
            description=record.description,
            template=record.template,
            mode=record.mode,
            first_message=record.first_message,
            connection=record.connection,
            model=record.model,
            controls=record.controls,
            is_active=record.is_active,
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class PersonaPage(Page[Persona]):
    """Personas, newest first."""
