"""Modules: the parts that prompts are made of, checked when they are saved."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from db.errors import DuplicateName
from db.ids import ModuleId, UserId, new_id
from db.records import ModuleRecord
from db.stores.modules import ModuleStore, ModuleUsed
from services.audit import AuditLog
from services.errors import Conflict, InvalidRequest, NotFound, StaleVersion
from services.prompt.template import parse
from services.prompt.triggers import Trigger
from services.scripts.analysis import Analysis, Problem, analyse
from services.scripts.checker import ScriptChecker

_UPDATE_ATTEMPTS = 5
_READ_FOR_COMPUTING = ("type", "content", "script")


class InvalidScript(InvalidRequest):
    """The script has errors."""

    code = "invalid_script"

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(
            f"Line {first.line}, column {first.column}: {first.message}",
            field="script",
            problems=[asdict(problem) for problem in problems],
        )


class ModuleInUse(Conflict):
    """The module is used."""

    code = "module_in_use"


@dataclass(frozen=True, slots=True)
class ModuleFilter:
    """Which modules to list; None lets all pass. `q` is looked for in names and descriptions."""

    type: str | None = None
    execution_context: str | None = None
    active: bool | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptAnalysis:
    """What is known of a script that was not run. One without problems can be saved."""

    analysis: Analysis
    problems: Sequence[Problem]


class ModuleService:
    """Keeps the modules of an owner."""

    def __init__(self, modules: ModuleStore, checker: ScriptChecker, audit: AuditLog) -> None:
        self._modules = modules
        self._checker = checker
        self._audit = audit

    async def create(self, owner_id: UserId, fields: Mapping[str, Any]) -> ModuleRecord:
        """Store a module made of the record's own fields, `name` at least.

        Raises `Conflict` if the name is taken, `InvalidTrigger`, `InvalidScript`.
        """
        checked = await self.checked(fields)
        try:
            return await self._modules.create(ModuleId(new_id()), owner_id, checked)
        except DuplicateName as taken:
            raise _name_taken() from taken

    async def get(self, owner_id: UserId, module_id: ModuleId) -> ModuleRecord:
        """One module. Raises `NotFound`."""
        module = await self._modules.get(module_id, owner_id)
        if module is None:
            raise NotFound("There is no module with that id.")
        return module

    async def list(
        self, owner_id: UserId, wanted: ModuleFilter, *, before: ModuleId | None, limit: int
    ) -> tuple[list[ModuleRecord], ModuleId | None]:
        """Up to `limit` modules made before `before`, newest first, and where the next page begins if there is one."""
        found = await self._modules.list(
            owner_id,
            type=wanted.type,
            execution_context=wanted.execution_context,
            active=wanted.active,
            q=wanted.q,
            before=before,
            limit=limit + 1,
        )
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def update(
        self, owner_id: UserId, module_id: ModuleId, changes: Mapping[str, Any], *, version: int | None
    ) -> ModuleRecord:
        """Change the named fields. Raises what `create` raises, `NotFound`, and `StaleVersion` if `version` is old."""
        for _ in range(_UPDATE_ATTEMPTS):
            current = await self.get(owner_id, module_id)
            if version is not None and current.version != version:
                break
            checked = await self.checked(changes, current)
            try:
                # What is computed belongs to just this version of the other fields.
                updated = await self._modules.update(module_id, owner_id, checked, version=current.version)
            except DuplicateName as taken:
                raise _name_taken() from taken
            if updated is not None:
                return updated
        raise StaleVersion(version=(await self.get(owner_id, module_id)).version)

    async def delete(self, owner_id: UserId, module_id: ModuleId, *, version: int | None, force: bool) -> None:
        """Delete a module with what it remembers.

        Raises `NotFound`, `StaleVersion`, and `ModuleInUse` with the list of what uses it, unless `force` is set.
        """
        try:
            deleted = await self._modules.delete(module_id, owner_id, version=version, force=force)
        except ModuleUsed as used:
            names = ", ".join(f"{use.kind} {use.name}" for use in used.uses)
            raise ModuleInUse(
                f"The module is used by {names}. With force=true it is deleted all the same.",
                used_by=[{"kind": use.kind, "id": str(use.id), "name": use.name} for use in used.uses],
            ) from used
        if not deleted:
            raise StaleVersion(version=(await self.get(owner_id, module_id)).version)
        await self._audit.note(owner_id, "module.delete", module_id)

    async def analyse(self, script: str) -> ScriptAnalysis:
        """What the script will do, and what is wrong with it; it is not run."""
        analysis = await asyncio.to_thread(analyse, script)
        return ScriptAnalysis(analysis, analysis.syntax_errors or await self._checker.check(script))

    async def checked(self, fields: Mapping[str, Any], current: ModuleRecord | None = None) -> dict[str, Any]:
        """`fields` with what is computed from them, for a new module or to change `current`.

        Raises `InvalidTrigger`, `InvalidScript`.
        """
        checked = dict(fields)
        Trigger.compile(checked.get("trigger_pattern"))
        if current is not None and not checked.keys() & set(_READ_FOR_COMPUTING):
            return checked
        type, content, script = (checked.get(name, getattr(current, name, "")) for name in _READ_FOR_COMPUTING)
        if "content" in checked:
            checked["refers_to"] = list((await asyncio.to_thread(parse, content)).references)
        return checked | await self._computed(type, script)

    async def _computed(self, type: str, script: str) -> dict[str, Any]:
        if not script.strip():
            return {"requires_ai": False, "analysis": None}
        found = await self.analyse(script)
        if found.problems:
            raise InvalidScript(found.problems)
        return told_by(type, found.analysis)


def told_by(type: str, analysis: Analysis) -> dict[str, Any]:
    """What is stored with a module of what was read from its script."""
    told = {name: list(getattr(analysis, name)) for name in ("functions", "outputs", "references")}
    return {"requires_ai": type == "advanced" and analysis.requires_ai, "analysis": told}


def _name_taken() -> Conflict:
    return Conflict("A module of that name exists already.", field="name")
