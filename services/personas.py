"""Personas: who answers, with which words, model and controls."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.errors import DuplicateName
from db.ids import PersonaId, UserId, new_id
from db.records import PersonaRecord
from db.stores.personas import PersonaStore
from services.errors import Conflict, InvalidRequest, NotFound, StaleVersion
from services.providers.controls import validate_controls
from services.providers.registry import Providers

_LONGEST_SLUG = 60
_SLUG_ATTEMPTS = 5
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class PersonaFilter:
    """Which personas to list; None lets all pass. `q` is looked for in names and descriptions."""

    mode: str | None = None
    active: bool | None = None
    q: str | None = None


class PersonaService:
    """Keeps the personas of an owner."""

    def __init__(self, personas: PersonaStore, providers: Providers) -> None:
        self._personas = personas
        self._providers = providers

    async def create(self, owner_id: UserId, fields: Mapping[str, Any]) -> PersonaRecord:
        """Store a persona made of the record's own fields, `name` at least.

        Raises `Conflict` if the name is taken, `InvalidRequest`, `UnknownProvider`, `UnknownControl`, `InvalidControl`.
        """
        checked = self._checked(fields)
        persona_id = PersonaId(new_id())
        for slug in _slugs(checked["name"]):
            try:
                return await self._personas.create(persona_id, owner_id, {**checked, "slug": slug})
            except DuplicateName as taken:
                _unless_slug(taken)
        raise Conflict("No free slug was found for that name.", field="name")

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
    ) -> PersonaRecord:
        """Change the named fields. Raises what `create` raises, `NotFound`, and `StaleVersion` if `version` is old."""
        checked = self._checked(changes)
        for slug in _slugs(checked["name"]) if "name" in checked else (None,):
            try:
                updated = await self._personas.update(
                    persona_id, owner_id, checked if slug is None else {**checked, "slug": slug}, version=version
                )
            except DuplicateName as taken:
                _unless_slug(taken)
                continue
            return updated or await self._missing(owner_id, persona_id)
        raise Conflict("No free slug was found for that name.", field="name")

    async def delete(self, owner_id: UserId, persona_id: PersonaId, *, version: int | None) -> None:
        """Delete a persona; its sessions stay. Raises `NotFound`, `StaleVersion`."""
        if not await self._personas.delete(persona_id, owner_id, version=version):
            await self._missing(owner_id, persona_id)

    async def _missing(self, owner_id: UserId, persona_id: PersonaId) -> PersonaRecord:
        """Say why nothing was changed: the persona is not there, or not of that version."""
        persona = await self.get(owner_id, persona_id)
        raise StaleVersion(version=persona.version)

    def _checked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        checked = dict(fields)
        if checked.get("mode") == "autonomous":
            raise InvalidRequest("Autonomous personas are not available yet; mode must be reactive.", field="mode")
        if checked.get("connection") is not None:
            self._providers.get(checked["connection"])
        if "controls" in checked:
            checked["controls"] = dict(validate_controls(checked["controls"] or {}))
        return checked


def _slugs(name: str) -> list[str]:
    """Addresses for `name`, from the plainest to one that nobody else can have."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = _NOT_IN_SLUGS.sub("-", ascii_name).strip("-")[:_LONGEST_SLUG].rstrip("-") or "persona"
    return [slug, *(f"{slug}-{number}" for number in range(2, _SLUG_ATTEMPTS)), f"{slug}-{new_id().hex[-12:]}"]


def _unless_slug(taken: DuplicateName) -> None:
    if "slug" not in str(taken):
        raise Conflict("A persona of that name exists already.", field="name") from taken
