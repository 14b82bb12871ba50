"""Templates over REST."""

from collections.abc import Iterable
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer, Body, Text, at_most
from api.schemas.modules import ModuleName
from api.schemas.pages import Page
from db.records import ExecutionContext, ModuleRecord, ModuleType
from services.prompt.expansion import Warned
from services.prompt.planning import Validation


class TemplateSource(Body):
    """A template to judge."""

    template: Annotated[Text, *at_most(65_536)]
    inside: ModuleName | None = Field(
        None, description="The module whose content it is to be; left out, it is a persona's."
    )


class TemplateWarning(Answer):
    """A reference that would stay as it was written, and why."""

    kind: str
    source: str = Field(description="The reference as it is written.")
    inside: str | None = Field(description="The module whose content it is in; null is the template itself.")
    message: str


class TemplateFindings(Answer):
    """What would become of a template."""

    is_valid: bool = Field(description="All that it names exists, nothing runs in a circle, and it is not too large.")
    module_references: list[str]
    missing_modules: list[str]
    invalid_module_names: list[str]
    cycles: list[list[str]] = Field(description="Each as a path that ends where it begins.")
    warnings: list[TemplateWarning]
    error: str | None = Field(description="Why it cannot be used at all.")

    @classmethod
    def of(cls, found: Validation) -> Self:
        """What a client sees of it."""
        return cls(
            is_valid=found.is_valid,
            module_references=list(found.module_references),
            missing_modules=list(found.missing_modules),
            invalid_module_names=list(found.invalid_module_names),
            cycles=[list(cycle) for cycle in found.cycles],
            warnings=warnings_of(found.warnings),
            error=found.error,
        )


def warnings_of(warnings: Iterable[Warned]) -> list[TemplateWarning]:
    """What a client sees of the warnings."""
    return [
        TemplateWarning(kind=one.kind, source=one.source, inside=one.inside, message=one.message) for one in warnings
    ]


class AvailableModule(Answer):
    """A module as an editor offers it."""

    id: UUID
    name: str
    description: str
    type: ModuleType
    execution_context: ExecutionContext
    requires_ai: bool
    outputs: list[str] = Field(description="The outputs that its script sets, as far as they are written out.")

    @classmethod
    def of(cls, record: ModuleRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            name=record.name,
            description=record.description,
            type=record.type,
            execution_context=record.execution_context,
            requires_ai=record.requires_ai,
            outputs=(record.analysis or {}).get("outputs", []),
        )


class AvailableModules(Page[AvailableModule]):
    """Active modules, newest first."""
