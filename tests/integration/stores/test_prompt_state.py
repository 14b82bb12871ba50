"""What one turn of a session leaves for the next: memories here, and with the session they all go."""

import asyncpg
import pytest

from db.ids import MemoryId, ModuleId, new_id
from db.pool import Database
from db.stores.memories import MemoryStore
from db.stores.modules import ModuleStore
from db.stores.turns import NewResult, NewTrace, TurnStore
from tests.integration.stores.conftest import Owner, hold


@pytest.fixture
async def made(pool: Database, owner: Owner) -> list[ModuleId]:
    """Two modules of the owner."""
    modules = ModuleStore(pool)
    return [(await modules.create(ModuleId(new_id()), owner.id, {"name": name})).id for name in ("a", "b")]


async def remember(memories: MemoryStore, owner: Owner, *contents: str) -> list[MemoryId]:
    ids = [MemoryId(new_id()) for _ in contents]
    for memory_id, content in zip(ids, contents, strict=True):
        assert await memories.add(memory_id, owner.session_id, owner.id, content)
    return ids


async def test_memories_are_read_newest_first_and_in_pages(pool: Database, owner: Owner) -> None:
    memories = MemoryStore(pool)
    ids = await remember(memories, owner, "one", "two", "three")

    first = await memories.newest(owner.session_id, owner.id, limit=2)
    rest = await memories.newest(owner.session_id, owner.id, before=first[-1].id, limit=2)

    assert [memory.id for memory in (*first, *rest)] == ids[::-1]
    assert await memories.count(owner.session_id, owner.id) == 3


async def test_a_memory_keeps_its_range_and_metadata_and_is_added_once(pool: Database, owner: Owner) -> None:
    memories, memory_id = MemoryStore(pool), MemoryId(new_id())

    added = [
        await memories.add(
            memory_id, owner.session_id, owner.id, "x", first_message=3, last_message=9, metadata={"by": "a"}
        )
        for _ in range(2)
    ]

    assert added[0] == added[1]
    assert added[0]
    assert (added[0].first_message, added[0].last_message, added[0].metadata) == (3, 9, {"by": "a"})
    assert await memories.count(owner.session_id, owner.id) == 1


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("What does he eat: bread or cheese?", ["He likes bread and cheese", "He bakes bread"]),
        ("CHEESE", ["He likes bread and cheese"]),
        ("猫", ["彼は猫が好きです"]),
        ("ake", ["He bakes bread"]),
        ("nothing | & ! (", []),
        ("%", []),
    ],
)
async def test_memories_are_found_by_their_words_the_best_first(
    pool: Database, owner: Owner, q: str, found: list[str]
) -> None:
    memories = MemoryStore(pool)
    await remember(memories, owner, "He likes bread and cheese", "彼は猫が好きです", "He bakes bread")

    matching = await memories.search(owner.session_id, owner.id, q, limit=9)

    assert [memory.content for memory in matching] == found


async def test_memories_are_their_owners_alone(pool: Database, owner: Owner, stranger: Owner) -> None:
    memories = MemoryStore(pool)
    await remember(memories, owner, "secret")

    assert await memories.add(MemoryId(new_id()), owner.session_id, stranger.id, "planted") is None
    assert await memories.newest(owner.session_id, stranger.id, limit=9) == []
    assert await memories.search(owner.session_id, stranger.id, "secret", limit=9) == []
    assert await memories.clear(owner.session_id, stranger.id) == 0
    assert await memories.clear(owner.session_id, owner.id) == 1


async def test_with_a_session_goes_all_that_it_left(
    pool: Database, owner: Owner, made: list[ModuleId], database: asyncpg.Connection
) -> None:
    fence = await hold(database, owner, 0)
    given = [NewResult(made[0], "spoke", "x", {}, {"x": 1})]
    assert await TurnStore(pool).keep(owner.runs[0], owner.id, given, fence=fence, trace=NewTrace("", {}))
    await remember(MemoryStore(pool), owner, "x")

    await database.execute("delete from sessions where id = $1", owner.session_id)

    for table in ("module_variables", "module_results", "memories", "run_traces"):
        assert not await database.fetchval(f"select count(*) from {table} where session_id = $1", owner.session_id)
