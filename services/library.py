"""All personas and modules of an owner as one file, out and in again."""

import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from db.errors import DuplicateName
from db.ids import UserId
from db.stores.library import Library, LibraryStore, NewPersona, Written
from db.stores.personas import NoSuchModule
from services.audit import AuditLog
from services.connections.directory import ConnectionDirectory
from services.errors import CallerError, Conflict, InvalidRequest, NotFound
from services.images import ImageService, Painted
from services.modules import ModuleService
from services.personas import PersonaService, slugs
from services.prompt.template import parse


@dataclass(frozen=True, slots=True)
class Export:
    """Everything of an owner, and its pictures by what personas call them."""

    library: Library
    images: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Import:
    """A file that was read: fields of modules and personas, and pictures in base64.

    A persona's `modules` are names; its `slug` is used if it is free.
    """

    modules: Sequence[Mapping[str, Any]]
    personas: Sequence[Mapping[str, Any]]
    images: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of each item of a file, and what will not work here as it did elsewhere."""

    items: Sequence[Written]
    warnings: Sequence[str]


class LibraryService:
    """Moves the personas and modules of an owner."""

    def __init__(
        self,
        library: LibraryStore,
        modules: ModuleService,
        personas: PersonaService,
        images: ImageService,
        connections: ConnectionDirectory,
        audit: AuditLog,
    ) -> None:
        self._library = library
        self._modules = modules
        self._personas = personas
        self._images = images
        self._connections = connections
        self._audit = audit

    async def export(self, owner_id: UserId) -> Export:
        """Everything of the owner, as of one moment."""
        library = await self._library.read(owner_id)
        images: dict[str, bytes] = {}
        for path in dict.fromkeys(persona.image for persona in library.personas if persona.image):
            picture = await self._images.read(owner_id, path)
            if picture is not None:
                images[path] = picture
        modules, personas = len(library.modules), len(library.personas)
        await self._audit.note(owner_id, "library.export", modules=modules, personas=personas)
        return Export(library, images)

    async def put(self, owner_id: UserId, file: Import) -> ImportReport:
        """Store all of the file or nothing of it. What has the name of something that is there takes its place.

        Raises what making its modules and personas raises, with the item named; `NotFound` for modules and pictures
        that are neither in the file nor there; `Conflict` if others write at the same time.
        """
        modules = [await self._module(position, fields) for position, fields in enumerate(file.modules)]
        painted = await self._painted(file)
        personas = [
            await self._persona(owner_id, position, fields, painted) for position, fields in enumerate(file.personas)
        ]
        for picture in painted.values():
            await self._images.keep(owner_id, picture)
        try:
            written = await self._library.write(owner_id, modules, personas)
        except NoSuchModule as missing:
            raise NotFound(
                f"There is no module {missing}, neither here nor in the file.", field="personas"
            ) from missing
        except DuplicateName as taken:
            raise Conflict("Somebody else made one of these at the same time: try again.") from taken
        await self._audit.note(owner_id, "library.import", modules=len(modules), personas=len(personas))
        return ImportReport(written, await self._warnings(owner_id, file))

    async def _module(self, position: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        async with _named("modules", position):
            return await self._modules.checked(fields)

    async def _painted(self, file: Import) -> dict[str, Painted]:
        """The pictures of the file that its personas have, by what the file calls them."""
        wanted = dict.fromkeys(persona["image"] for persona in file.personas if persona["image"] in file.images)
        painted: dict[str, Painted] = {}
        for path in wanted:
            async with _named("images", path):
                painted[path] = await self._images.painted(_decoded(file.images[path]))
        return painted

    async def _persona(
        self, owner_id: UserId, position: int, fields: Mapping[str, Any], painted: Mapping[str, Painted]
    ) -> NewPersona:
        checked = dict(fields)
        modules, slug, image = checked.pop("modules"), checked.pop("slug"), checked.pop("image")
        connection = checked.pop("connection")
        async with _named("personas", position):
            checked = await self._personas.checked(owner_id, checked)
            if image is not None and image not in painted:
                await self._images.check(owner_id, image)
        return NewPersona(
            fields={
                **checked,
                "connection": connection,  # it may be made here later
                "image": _path(image, painted),
                "refers_to": list(parse(checked["template"]).references),
            },
            modules=modules,
            slugs=[*([slug] if slug else []), *slugs(checked["name"])],
        )

    async def _warnings(self, owner_id: UserId, file: Import) -> list[str]:
        named = {persona["connection"] for persona in file.personas if persona["connection"] is not None}
        unknown = {name for name in named if not await self._connections.knows(owner_id, name)}
        return [
            f"{persona['name']} asks the model server {persona['connection']}, which is not configured here."
            for persona in file.personas
            if persona["connection"] in unknown
        ]


def _path(image: str | None, painted: Mapping[str, Painted]) -> str | None:
    return painted[image].path if image is not None and image in painted else image


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("This is not base64.", field="") from error


@asynccontextmanager
async def _named(kind: str, item: int | str) -> AsyncGenerator[None, None]:
    """Lets faults of an item say which one they are about."""
    try:
        yield
    except CallerError as error:
        inner = error.details.get("field")
        # Of a picture there is nothing further in.
        steps = (inner,) if inner and kind != "images" else ()
        error.details["field"] = (kind, item, *steps)
        raise
