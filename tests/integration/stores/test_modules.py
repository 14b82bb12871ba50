"""What modules leave behind in the database, and who may see it."""

import asyncio
from typing import Any

import asyncpg
import pytest

from db.errors import DatabaseError, DuplicateName
from db.ids import ModuleId, PersonaId, new_id
from db.pool import Database
from db.stores.modules import ModuleStore, ModuleUsed
from db.stores.personas import NoSuchModule, PersonaStore
from tests.integration.stores.conftest import Owner
from tests.waiting import eventually


@pytest.fixture
def modules(pool: Database) -> ModuleStore:
    return ModuleStore(pool)


@pytest.fixture
def personas(pool: Database) -> PersonaStore:
    return PersonaStore(pool)


async def make(modules: ModuleStore, owner: Owner, name: str, **fields: Any) -> ModuleId:
    return (await modules.create(ModuleId(new_id()), owner.id, {"name": name, **fields})).id


async def make_persona(personas: PersonaStore, owner: Owner, name: str, **fields: Any) -> PersonaId:
    made = await personas.create(PersonaId(new_id()), owner.id, {"name": name, "slug": name, **fields})
    return made.id


async def test_all_fields_come_back_as_they_were_stored(modules: ModuleStore, owner: Owner) -> None:
    fields = {
        "name": "mood",
        "description": "d",
        "type": "advanced",
        "content": "c",
        "script": "s",
        "trigger_pattern": "/x/",
        "trigger_depth": 3,
        "execution_context": "POST_RESPONSE",
        "timeout_ms": 5,
        "is_active": False,
        "requires_ai": True,
        "analysis": {"functions": ["generate"]},
        "refers_to": ["b", "a"],
    }

    made = await modules.create(ModuleId(new_id()), owner.id, fields)

    assert {name: getattr(made, name) for name in fields} == fields
    assert await modules.get(made.id, owner.id) == made


async def test_nullable_fields_are_cleared_by_null_and_others_stay(modules: ModuleStore, owner: Owner) -> None:
    module = await make(modules, owner, "mood", trigger_pattern="x", timeout_ms=5, analysis={"a": 1}, refers_to=["b"])
    cleared = {"trigger_pattern": None, "timeout_ms": None, "analysis": None, "refers_to": []}

    updated = await modules.update(module, owner.id, cleared, version=1)

    assert updated
    assert {name: getattr(updated, name) for name in cleared} == cleared
    assert (updated.name, updated.version) == ("mood", 2)
    assert await modules.update(module, owner.id, {"name": "other"}, version=1) is None


async def test_modules_are_found_by_name_or_id_in_one_go(modules: ModuleStore, owner: Owner, stranger: Owner) -> None:
    a, b, _ = [await make(modules, owner, name) for name in ("a", "b", "c")]
    theirs = await make(modules, stranger, "d")

    found = await modules.get_by_names(owner.id, ["b", "d", "nothing"], ids=[a, b, theirs])

    assert [module.name for module in found] == ["a", "b"]


async def test_a_name_belongs_to_one_module_of_an_owner(modules: ModuleStore, owner: Owner, stranger: Owner) -> None:
    await make(modules, owner, "mood")
    await make(modules, stranger, "mood")

    with pytest.raises(DuplicateName):
        await make(modules, owner, "mood")


@pytest.mark.parametrize("name", ["", "1a", "A", "a-b", "a" * 51, "a\n"])
async def test_the_database_itself_refuses_names_that_no_template_could_name(
    modules: ModuleStore, owner: Owner, name: str
) -> None:
    with pytest.raises(DatabaseError):
        await make(modules, owner, name)


async def test_strangers_neither_see_nor_touch_a_module(modules: ModuleStore, owner: Owner, stranger: Owner) -> None:
    module = await make(modules, owner, "mood")

    assert await modules.get(module, stranger.id) is None
    assert await modules.update(module, stranger.id, {"content": "x"}, version=None) is None
    assert await modules.delete(module, stranger.id, version=None, force=True) is False
    assert await modules.get_by_names(stranger.id, ["mood"], ids=[module]) == []
    assert (await modules.get(module, owner.id)) is not None


async def test_a_used_module_is_deleted_only_by_force(
    modules: ModuleStore, personas: PersonaStore, owner: Owner, stranger: Owner
) -> None:
    module = await make(modules, owner, "mood", refers_to=["mood"])
    await make(modules, owner, "friend", refers_to=["mood"])
    await make_persona(personas, owner, "Ada", refers_to=["mood"], module_ids=[module])
    await make_persona(personas, owner, "Bob", module_ids=[module])
    await make_persona(personas, stranger, "Eve", refers_to=["mood"])

    with pytest.raises(ModuleUsed) as used:
        await modules.delete(module, owner.id, version=None)

    assert [(use.kind, use.name) for use in used.value.uses] == [
        ("persona", "Ada"),
        ("persona", "Bob"),
        ("module", "friend"),
    ]
    assert await modules.delete(module, owner.id, version=1, force=True) is True
    assert await modules.get(module, owner.id) is None


async def test_attached_modules_keep_their_order(modules: ModuleStore, personas: PersonaStore, owner: Owner) -> None:
    a, b, c = [await make(modules, owner, name) for name in ("a", "b", "c")]
    persona = await make_persona(personas, owner, "Ada", module_ids=[c, a])

    updated = await personas.update(persona, owner.id, {"module_ids": [b, c, a]}, version=1)

    assert updated
    assert updated.module_ids == [b, c, a]
    assert [one.module_ids for one in await list_all(personas, owner)] == [[b, c, a]]


async def list_all(personas: PersonaStore, owner: Owner):
    return await personas.list(owner.id, mode=None, active=None, q=None, before=None, limit=9)


async def test_modules_of_others_cannot_be_attached(
    modules: ModuleStore, personas: PersonaStore, owner: Owner, stranger: Owner
) -> None:
    mine, theirs = await make(modules, owner, "mine"), await make(modules, stranger, "theirs")
    persona = await make_persona(personas, owner, "Ada", module_ids=[mine])

    with pytest.raises(NoSuchModule):
        await personas.update(persona, owner.id, {"module_ids": [theirs], "template": "x"}, version=None)

    kept = await personas.get(persona, owner.id)
    assert kept
    assert (kept.module_ids, kept.template, kept.version) == ([mine], "", 1)


async def test_attaching_a_module_that_is_being_deleted_waits_and_then_fails(
    modules: ModuleStore, personas: PersonaStore, owner: Owner, shared_database_url: str
) -> None:
    module = await make(modules, owner, "mood")
    deleter = await asyncpg.connect(shared_database_url)
    try:
        transaction = deleter.transaction()
        await transaction.start()
        await deleter.execute("delete from modules where id = $1", module)
        attaching = asyncio.create_task(make_persona(personas, owner, "Ada", module_ids=[module]))
        blocked = (
            "select exists (select from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid)))"
        )
        await eventually(lambda: deleter.fetchval(blocked))
        await transaction.commit()
        with pytest.raises(NoSuchModule):
            await attaching
    finally:
        await deleter.close()


async def test_one_persona_is_the_default_and_it_may_be_none(personas: PersonaStore, owner: Owner) -> None:
    ada = await make_persona(personas, owner, "Ada", is_default=True)
    bob = await make_persona(personas, owner, "Bob", is_default=True)
    assert {one.name: one.is_default for one in await list_all(personas, owner)} == {"Ada": False, "Bob": True}

    await personas.update(ada, owner.id, {"is_default": False}, version=None)
    default = await personas.get_default(owner.id)
    assert default
    assert (default.id, default.is_default) == (bob, True)

    await personas.delete(bob, owner.id, version=None)
    assert await personas.get_default(owner.id) is None
