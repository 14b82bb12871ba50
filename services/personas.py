"""Personas: who answers, with which words, modules, model and controls."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.errors import DuplicateName
from db.ids import ModuleId, PersonaId, UserId, new_id
from db.records import PersonaRecord
from db.stores.modules import ModuleStore
from db.stores.personas import NoSuchModule, PersonaStore
from services.audit import AuditLog
from services.connections.directory import ConnectionDirectory
from services.errors import Conflict, InvalidRequest, NotFound, StaleVersion
from services.images import ImageService
from services.prompt.planning import Validation
from services.providers.controls import validate_controls
from services.templates import TemplateService

_LONGEST_NAME = 100
_LONGEST_SLUG = 60
_SLUG_ATTEMPTS = 5
_COPY_ATTEMPTS = 50
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")
_COPIED = (
    "description",
    "template",
    "mode",
    "schedule",
    "first_message",
    "image",
    "connection",
    "model",
    "controls",
    "tools",
    "module_ids",
    "refers_to",
    "is_active",
)


@dataclass(frozen=True, slots=True)
class PersonaFilter:
    """Which personas to list; None lets all pass. `q` is looked for in names and descriptions."""

    mode: str | None = None
    active: bool | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class ReviewedPersona:
    """A persona, and what would become of its template with the modules of today."""

    persona: PersonaRecord
    template: Validation


class PersonaService:
    """Keeps the personas of an owner."""

    def __init__(
        self,
        personas: PersonaStore,
        modules: ModuleStore,
        templates: TemplateService,
        images: ImageService,
        connections: ConnectionDirectory,
        audit: AuditLog,
    ) -> None:
        self._personas = personas
        self._modules = modules
        self._templates = templates
        self._images = images
        self._connections = connections
        self._audit = audit

    async def create(self, owner_id: UserId, fields: Mapping[str, Any]) -> ReviewedPersona:
        """Store a persona made of the record's own fields, `name` at least; `modules` are ids or names, in order.

        Raises `Conflict` if the name is taken, `NotFound` for a module or an image, `InvalidRequest`,
        `UnknownProvider`, `UnknownControl`, `InvalidControl`.
        """
        template = await self._templates.validate(owner_id, fields.get("template", ""))
        checked = await self.checked(owner_id, fields) | {"refers_to": template.module_references}
        return ReviewedPersona(await self._insert(owner_id, checked), template)

    async def review(self, owner_id: UserId, persona_id: PersonaId) -> ReviewedPersona:
        """One persona and what would become of its template. Raises `NotFound`."""
        return await self._reviewed(await self.get(owner_id, persona_id))

    async def get(self, owner_id: UserId, persona_id: PersonaId) -> PersonaRecord:
        """One persona. Raises `NotFound`."""
        persona = await self._personas.get(persona_id, owner_id)
        if persona is None:
            raise NotFound("There is no persona with that id.")
        return persona

    async def list(
        self, owner_id: UserId, wanted: PersonaFilter, *, before: PersonaId | None, limit: int
    ) -> tuple[list[PersonaRecord], PersonaId | None]:
        """Up to `limit` personas made before `before`, newest first, and where the next page begins if there is one."""
        found = await self._personas.list(
            owner_id, mode=wanted.mode, active=wanted.active, q=wanted.q, before=before, limit=limit + 1
        )
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def update(
        self, owner_id: UserId, persona_id: PersonaId, changes: Mapping[str, Any], *, version: int | None
    ) -> ReviewedPersona:
        """Change the named fields. Raises what `create` raises, `NotFound`, and `StaleVersion` if `version` is old."""
        checked = await self.checked(owner_id, changes)
        if "template" in checked:
            found = await self._templates.validate(owner_id, checked["template"])
            checked["refers_to"] = found.module_references
        updated = await self._change(owner_id, persona_id, checked, version)
        return await self._reviewed(updated)

    async def duplicate(self, owner_id: UserId, persona_id: PersonaId, name: str | None = None) -> ReviewedPersona:
        """A copy with everything but being the default, under `name` or the first name that is free.

        Raises `NotFound`, and `Conflict` if `name` is taken.
        """
        persona = await self.get(owner_id, persona_id)
        copied = {field: getattr(persona, field) for field in _COPIED}
        for free in [name] if name else _copy_names(persona.name):
            try:
                return await self._reviewed(await self._insert(owner_id, {**copied, "name": free}))
            except Conflict:
                if name:
                    raise
        raise Conflict("No free name was found for the copy: give one.", field="name")

    async def delete(self, owner_id: UserId, persona_id: PersonaId, *, version: int | None) -> None:
        """Delete a persona; its sessions stay. Raises `NotFound`, `StaleVersion`."""
        if not await self._personas.delete(persona_id, owner_id, version=version):
            await self._missing(owner_id, persona_id)
        await self._audit.note(owner_id, "persona.delete", persona_id)

    async def checked(self, owner_id: UserId, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` as they can be stored. Raises what `create` raises but `Conflict`."""
        checked = dict(fields)
        if checked.get("mode") == "autonomous":
            raise InvalidRequest("Autonomous personas are not available yet; mode must be reactive.", field="mode")
        if checked.get("connection") is not None:
            await self._connections.check(owner_id, checked["connection"])
        if "controls" in checked:
            checked["controls"] = dict(validate_controls(checked["controls"] or {}))
        if checked.get("image") is not None:
            await self._images.check(owner_id, checked["image"])
        if "modules" in checked:
            checked["module_ids"] = await self._found(owner_id, checked.pop("modules"))
        return checked

    async def _reviewed(self, persona: PersonaRecord) -> ReviewedPersona:
        return ReviewedPersona(persona, await self._templates.validate(persona.owner_id, persona.template))

    async def _insert(self, owner_id: UserId, checked: Mapping[str, Any]) -> PersonaRecord:
        persona_id = PersonaId(new_id())
        for slug in slugs(checked["name"]):
            try:
                return await self._personas.create(persona_id, owner_id, {**checked, "slug": slug})
            except DuplicateName as taken:
                _unless_slug(taken)
            except NoSuchModule as gone:
                raise _no_module() from gone
        raise Conflict("No free slug was found for that name.", field="name")

    async def _change(
        self, owner_id: UserId, persona_id: PersonaId, checked: Mapping[str, Any], version: int | None
    ) -> PersonaRecord:
        for slug in slugs(checked["name"]) if "name" in checked else (None,):
            try:
                updated = await self._personas.update(
                    persona_id, owner_id, checked if slug is None else {**checked, "slug": slug}, version=version
                )
            except DuplicateName as taken:
                _unless_slug(taken)
                continue
            except NoSuchModule as gone:
                raise _no_module() from gone
            return updated or await self._missing(owner_id, persona_id)
        raise Conflict("No free slug was found for that name.", field="name")

    async def _missing(self, owner_id: UserId, persona_id: PersonaId) -> PersonaRecord:
        """Say why nothing was changed: the persona is not there, or not of that version."""
        persona = await self.get(owner_id, persona_id)
        raise StaleVersion(version=persona.version)

    async def _found(self, owner_id: UserId, modules: "Sequence[UUID | str]") -> "list[ModuleId]":
        """The ids of modules that are named by id or by name, each once, in order. Raises `NotFound`."""
        names = [module for module in modules if isinstance(module, str)]
        ids = [ModuleId(module) for module in modules if isinstance(module, UUID)]
        known: dict[UUID | str, ModuleId] = {}
        for module in await self._modules.get_by_names(owner_id, names, ids=ids):
            known[module.id] = known[module.name] = module.id
        for module in modules:
            if module not in known:
                raise _no_module(module)
        return list(dict.fromkeys(known[module] for module in modules))


def slugs(name: str) -> list[str]:
    """Addresses for `name`, from the plainest to one that nobody else can have."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = _NOT_IN_SLUGS.sub("-", ascii_name).strip("-")[:_LONGEST_SLUG].rstrip("-") or "persona"
    return [slug, *(f"{slug}-{number}" for number in range(2, _SLUG_ATTEMPTS)), f"{slug}-{new_id().hex[-12:]}"]


def _copy_names(name: str) -> Iterator[str]:
    for number in range(1, _COPY_ATTEMPTS):
        end = " (copy)" if number == 1 else f" (copy {number})"
        yield f"{name[: _LONGEST_NAME - len(end)]}{end}"


def _unless_slug(taken: DuplicateName) -> None:
    if "slug" not in str(taken):
        raise Conflict("A persona of that name exists already.", field="name") from taken


def _no_module(module: UUID | str | None = None) -> NotFound:
    which = "One of the modules is gone." if module is None else f"You have no module {module}."
    return NotFound(which, field="modules")
