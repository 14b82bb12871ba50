"""Personas over REST."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer, Body, Controls, Flag, Name, NotNull, Text, at_most
from api.schemas.modules import ModuleName
from api.schemas.pages import Page
from api.schemas.templates import TemplateWarning, warnings_of
from api.schemas.tools import ToolGrants
from db.records import PersonaMode as Mode
from db.records import PersonaRecord
from services.images import id_of
from services.personas import ReviewedPersona

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
    tools: ToolGrants | None = None
    modules: Annotated[list[UUID | ModuleName], Field(max_length=100)] | None = Field(
        None, description="Attached beside those that the template names: ids or names, in order."
    )
    image: Annotated[Text, Field(max_length=100)] | None = Field(
        None, description="The `image_path` of an uploaded picture."
    )
    is_active: Annotated[Flag, NotNull] = True
    is_default: Annotated[Flag, NotNull] = Field(
        False, description="Answers in sessions that are made without `persona_id`; there is one at most."
    )

    def changes(self) -> dict[str, Any]:
        """The record's fields that the client sent; `modules` as they were named."""
        cleared: dict[str, Any] = {"description": "", "template": "", "tools": {}, "modules": []}
        given = self.given()
        if self.tools is not None:
            given["tools"] = self.tools.model_dump(exclude_unset=True)
        return {name: cleared.get(name) if value is None else value for name, value in given.items()}


class PersonaCreate(PersonaUpdate):
    """A new persona."""

    name: PersonaName  # pyright: ignore[reportGeneralTypeIssues]


class PersonaCopy(Body):
    """What to call the copy of a persona."""

    name: PersonaName | None = Field(None, description="Left out: the same name with (copy) after it.")


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
    tools: dict[str, Any]
    modules: list[UUID] = Field(description="Attached beside those that the template names, in order.")
    references: list[str] = Field(description="The modules that the template names.")
    image: str | None
    image_url: str | None = Field(description="Where the picture can be fetched.")
    is_active: bool
    is_default: bool
    version: int = Field(description="Counts changes; also the ETag.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: PersonaRecord) -> Self:
        """What a client sees of the record."""
        return cls(**_seen(record))


class PersonaPage(Page[Persona]):
    """Personas, newest first."""


class PersonaDetails(Persona):
    """A persona, and what will not work in its template with the modules of today."""

    warnings: list[TemplateWarning]

    @classmethod
    def reviewed(cls, found: ReviewedPersona) -> Self:
        """What a client sees of it."""
        return cls(**_seen(found.persona), warnings=warnings_of(found.template.warnings))


def _seen(record: PersonaRecord) -> dict[str, Any]:
    image_id = record.image and id_of(record.image)
    same = {name: getattr(record, name) for name in Persona.model_fields if hasattr(record, name)}
    return {
        **same,
        "modules": record.module_ids,
        "references": record.refers_to,
        "image_url": image_id and f"/api/images/{image_id}",
    }
