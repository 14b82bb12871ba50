"""All personas and modules of an owner at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from db.errors import WriteConflict
from db.ids import ModuleId, PersonaId, UserId, new_id
from db.pool import Database
from db.records import ModuleRecord, PersonaRecord
from db.stores.modules import change_module, insert_module
from db.stores.personas import NoSuchModule, change_persona, insert_persona
from db.stores.rows import records

if TYPE_CHECKING:
    from db.pool import PooledConnection

Outcome = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, slots=True)
class Library:
    """Everything that an owner has written, by name."""

    modules: list[ModuleRecord]
    personas: list[PersonaRecord]


@dataclass(frozen=True, slots=True)
class NewPersona:
    """A persona to be written: the record's fields, the names of attached modules, and slugs, the dearest first."""

    fields: Mapping[str, Any]
    modules: Sequence[str]
    slugs: Sequence[str]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one item."""

    kind: Literal["module", "persona"]
    name: str
    outcome: Outcome


class LibraryStore:
    """Personas and modules of an owner, read and written together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, owner_id: UserId) -> Library:
        """Everything of the owner, as of one moment."""
        async with self._database.transaction() as connection:
            return await _read(connection, owner_id)

    async def write(
        self, owner_id: UserId, modules: Sequence[Mapping[str, Any]], personas: Sequence[NewPersona]
    ) -> list[Written]:
        """Store all of it or nothing; what has the name of something that is there takes its place.

        Raises `NoSuchModule` with the name of a module that is neither given nor there, `DuplicateName` and
        `WriteConflict` if others write at the same time.
        """
        async with self._database.transaction() as connection:
            known = await _read(connection, owner_id)
            module_ids = {module.name: module.id for module in known.modules}
            written: list[Written] = []
            by_name = {module.name: module for module in known.modules}
            for fields in modules:
                name: str = fields["name"]
                module_ids[name], outcome = await _write_module(connection, owner_id, by_name.get(name), fields)
                written.append(Written("module", name, outcome))
            people = {persona.name: persona for persona in known.personas}
            slugs = {persona.slug for persona in known.personas}
            for new in personas:
                name = new.fields["name"]
                fields = {**new.fields, "module_ids": _attached(new.modules, module_ids)}
                if (persona := people.get(name)) is None:
                    fields["slug"] = next(slug for slug in new.slugs if slug not in slugs)
                    slugs.add(fields["slug"])
                outcome = await _write_persona(connection, owner_id, persona, fields)
                written.append(Written("persona", name, outcome))
        return written


def _attached(names: Sequence[str], ids: Mapping[str, ModuleId]) -> list[ModuleId]:
    for name in names:
        if name not in ids:
            raise NoSuchModule(name)
    return list(dict.fromkeys(ids[name] for name in names))


async def _write_module(
    connection: "PooledConnection", owner_id: UserId, current: ModuleRecord | None, fields: Mapping[str, Any]
) -> tuple[ModuleId, Outcome]:
    if current is None:
        return (await insert_module(connection, ModuleId(new_id()), owner_id, fields)).id, "created"
    if _is_same(current, fields):
        return current.id, "unchanged"
    if await change_module(connection, current.id, owner_id, fields, version=current.version) is None:
        raise WriteConflict(f"module {current.name} was changed meanwhile")
    return current.id, "updated"


async def _write_persona(
    connection: "PooledConnection", owner_id: UserId, current: PersonaRecord | None, fields: Mapping[str, Any]
) -> Outcome:
    if current is None:
        await insert_persona(connection, PersonaId(new_id()), owner_id, fields)
        return "created"
    if _is_same(current, fields):
        return "unchanged"
    if await change_persona(connection, current.id, owner_id, fields, version=current.version) is None:
        raise WriteConflict(f"persona {current.name} was changed meanwhile")
    return "updated"


def _is_same(current: ModuleRecord | PersonaRecord, fields: Mapping[str, Any]) -> bool:
    return all(getattr(current, name) == value for name, value in fields.items())


async def _read(connection: "PooledConnection", owner_id: UserId) -> Library:
    # One writer of a library at a time, and both halves as of the same moment.
    await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", owner_id)
    modules = await connection.fetch("SELECT * FROM modules WHERE owner_id = $1 ORDER BY name", owner_id)
    personas = await connection.fetch(
        """
        SELECT p.*, coalesce(u.default_persona_id = p.id, false) AS is_default,
               ARRAY(SELECT module_id FROM persona_modules WHERE persona_id = p.id ORDER BY position) AS module_ids
        FROM personas p JOIN users u ON u.id = p.owner_id
        WHERE p.owner_id = $1 ORDER BY p.name
        """,
        owner_id,
    )
    return Library(records(ModuleRecord, modules), records(PersonaRecord, personas))
