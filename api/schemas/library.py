"""Personas and modules as one file."""

from base64 import b64encode
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api.schemas.model import Answer, Body, Controls, Flag, Name, NotNull, Text
from api.schemas.modules import ModuleCreate, ModuleName
from api.schemas.personas import Description, FirstMessage, PersonaName, Template, ToolGrants
from db.records import ModuleRecord, PersonaMode, PersonaRecord
from db.stores.library import Outcome
from services.library import Export, Import, ImportReport

_MOST_ITEMS = 2_000
_MOST_IMAGES = 500


class LibraryModule(ModuleCreate):
    """A module; fields that are left out have their defaults."""

    def given(self) -> dict[str, Any]:
        """All fields: what is not in the file is not as it was before either."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @classmethod
    def of(cls, record: ModuleRecord) -> Self:
        """The module as it stands in a file."""
        return cls.model_validate({name: getattr(record, name) for name in cls.model_fields})


class LibraryPersona(Body):
    """A persona; fields that are left out have their defaults."""

    name: PersonaName
    slug: Annotated[Text, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)] | None = Field(
        None, description="Used if it is free."
    )
    description: Description = ""
    template: Template = ""
    mode: Annotated[PersonaMode, NotNull] = "reactive"
    first_message: FirstMessage | None = None
    connection: Name | None = None
    model: Name | None = None
    controls: Controls = Field(default_factory=dict[str, Any])
    tools: ToolGrants = Field(default_factory=ToolGrants)
    modules: list[ModuleName] = Field(
        default_factory=list[str],
        max_length=100,
        description="Names of attached modules, of the file or there already.",
    )
    image: Annotated[Text, Field(max_length=100)] | None = Field(None, description="A key of `images`.")
    is_active: Flag = True

    def fields(self) -> dict[str, Any]:
        """All fields, in the words of the record but for `modules`, which are names."""
        return {name: getattr(self, name) for name in type(self).model_fields} | {
            "tools": self.tools.model_dump(exclude_unset=True)
        }

    @classmethod
    def of(cls, record: PersonaRecord, modules: list[str], has_image: bool) -> Self:
        """The persona as it stands in a file."""
        own = {name: getattr(record, name) for name in cls.model_fields if name != "modules"}
        return cls.model_validate(own | {"modules": modules, "image": record.image if has_image else None})


class LibraryFile(Body):
    """All personas and modules of an owner."""

    format: Literal["colloquy-library"] = "colloquy-library"
    version: Literal[1] = 1
    modules: list[LibraryModule] = Field(default_factory=list[LibraryModule], max_length=_MOST_ITEMS)
    personas: list[LibraryPersona] = Field(default_factory=list[LibraryPersona], max_length=_MOST_ITEMS)
    images: dict[Annotated[Text, Field(max_length=100)], Text] = Field(
        default_factory=dict[str, str],
        max_length=_MOST_IMAGES,
        description="Pictures in base64, by what personas call them.",
    )

    @model_validator(mode="after")
    def _has_each_name_once(self) -> Self:
        for kind, items in (("modules", self.modules), ("personas", self.personas)):
            names: set[str] = set()
            for item in items:
                if item.name in names:
                    raise ValueError(f"{kind} must not have the name {item.name} twice")
                names.add(item.name)
        return self

    def to_import(self) -> Import:
        """The same in the words of the service."""
        return Import(
            modules=[module.changes() for module in self.modules],
            personas=[persona.fields() for persona in self.personas],
            images=self.images,
        )

    @classmethod
    def of(cls, export: Export) -> Self:
        """The file that holds all of it."""
        names = {module.id: module.name for module in export.library.modules}
        return cls(
            format="colloquy-library",
            version=1,
            modules=[LibraryModule.of(module) for module in export.library.modules],
            personas=[
                LibraryPersona.of(
                    persona, [names[module_id] for module_id in persona.module_ids], persona.image in export.images
                )
                for persona in export.library.personas
            ],
            images={path: b64encode(data).decode() for path, data in export.images.items()},
        )


class ImportedItem(Answer):
    """What became of one item of the file."""

    kind: Literal["module", "persona"]
    name: str
    outcome: Outcome


class Imported(Answer):
    """What became of the file."""

    items: list[ImportedItem]
    warnings: list[str] = Field(description="What will not work here as it did elsewhere.")

    @classmethod
    def of(cls, report: ImportReport) -> Self:
        """What a client sees of it."""
        return cls(
            items=[ImportedItem(kind=one.kind, name=one.name, outcome=one.outcome) for one in report.items],
            warnings=list(report.warnings),
        )
