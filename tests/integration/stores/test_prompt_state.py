"""What one turn of a session leaves for the next: variables, results, memories and traces."""

import random
from typing import Any

import asyncpg
import pytest

from db.ids import MemoryId, ModuleId, new_id
from db.pool import Database
from db.stores.memories import MemoryStore
from db.stores.module_results import ModuleResultStore, NewResult
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.variables import VariableStore
from tests.integration.stores.conftest import Owner


@pytest.fixture
async def made(pool: Database, owner: Owner) -> list[ModuleId]:
    """Two modules of the owner."""
    modules = ModuleStore(pool)
    return [(await modules.create(ModuleId(new_id()), owner.id, {"name": name})).id for name in ("a", "b")]


async def test_variables_are_set_together_and_others_stay(pool: Database, owner: Owner, made: list[ModuleId]) -> None:
    a, b = made
    variables = VariableStore(pool)
    await variables.set(owner.session_id, owner.id, {a: {"count": 1, "kept": [1, {"x": None}]}, b: {"count": 9}})

    await variables.set(owner.session_id, owner.id, {a: {"count": 2, "nothing": None}, b: {}})

    assert await variables.get(owner.session_id, owner.id, made) == {
        a: {"count": 2, "kept": [1, {"x": None}], "nothing": None},
        b: {"count": 9},
    }
    assert await variables.get(owner.session_id, owner.id, [b]) == {b: {"count": 9}}


async def test_variables_of_foreign_or_absent_things_go_nowhere(
    pool: Database, owner: Owner, stranger: Owner, made: list[ModuleId]
) -> None:
    variables = VariableStore(pool)
    values: dict[ModuleId, dict[str, Any]] = {made[0]: {"x": 1}, ModuleId(new_id()): {"x": 1}}

    await variables.set(stranger.session_id, stranger.id, values)
    await variables.set(owner.session_id, stranger.id, values)
    await variables.set(stranger.session_id, owner.id, values)

    assert await variables.get(owner.session_id, owner.id, made) == {}
    assert await variables.get(stranger.session_id, stranger.id, made) == {}


async def test_the_newest_run_decides_in_whatever_order_results_arrive(
    pool: Database, owner: Owner, made: list[ModuleId]
) -> None:
    results = ModuleResultStore(pool)
    order = [0, 1, 2, 2, 1]
    random.shuffle(order)

    for run in order:
        await results.put(owner.runs[run], owner.id, [NewResult(made[0], "spoke", f"of {run}", {"run": run})])

    found = await results.get(owner.session_id, owner.id, made)
    assert set(found) == {made[0]}
    newest = found[made[0]]
    assert (newest.text, newest.outputs, newest.run_id, newest.run_seq) == ("of 2", {"run": 2}, owner.runs[2], 21)


async def test_a_failure_keeps_the_last_good_text(pool: Database, owner: Owner, made: list[ModuleId]) -> None:
    results = ModuleResultStore(pool)
    await results.put(owner.runs[0], owner.id, [NewResult(made[0], "spoke", "good", {"x": 1})])

    await results.put(owner.runs[1], owner.id, [NewResult(module, "failed") for module in made])

    found = await results.get(owner.session_id, owner.id, made)
    assert [(found[module].state, found[module].text, found[module].outputs) for module in made] == [
        ("failed", "good", {"x": 1}),
        ("failed", "", {}),
    ]


async def test_results_of_foreign_runs_go_nowhere(
    pool: Database, owner: Owner, stranger: Owner, made: list[ModuleId]
) -> None:
    results = ModuleResultStore(pool)

    for run, user in ((stranger.runs[0], owner.id), (owner.runs[0], stranger.id), (stranger.runs[0], stranger.id)):
        await results.put(run, user, [NewResult(made[0], "spoke", "x")])

    assert await results.get(owner.session_id, owner.id, made) == {}
    assert await results.get(stranger.session_id, stranger.id, made) == {}


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


async def test_the_trace_of_a_run_can_be_told_again_but_only_by_its_owner(
    pool: Database, owner: Owner, stranger: Owner
) -> None:
    traces, run = RunTraceStore(pool), owner.runs[0]
    await traces.put(run, owner.id, prompt="Be brief.", trace=[{"module": "a"}])
    await traces.put(run, owner.id, prompt="Be kind.", trace=[{"module": "b"}])

    await traces.put(run, stranger.id, prompt="Be evil.", trace=[])

    found = await traces.get(run, owner.id)
    assert found
    assert (found.prompt, found.trace, found.session_id) == ("Be kind.", [{"module": "b"}], owner.session_id)
    assert await traces.get(run, stranger.id) is None


async def test_with_a_session_goes_all_that_it_left(
    pool: Database, owner: Owner, made: list[ModuleId], database: asyncpg.Connection
) -> None:
    await VariableStore(pool).set(owner.session_id, owner.id, {made[0]: {"x": 1}})
    await ModuleResultStore(pool).put(owner.runs[0], owner.id, [NewResult(made[0], "spoke", "x")])
    await remember(MemoryStore(pool), owner, "x")
    await RunTraceStore(pool).put(owner.runs[0], owner.id, prompt="", trace={})

    await database.execute("delete from sessions where id = $1", owner.session_id)

    for table in ("module_variables", "module_results", "memories", "run_traces"):
        assert not await database.fetchval(f"select count(*) from {table} where session_id = $1", owner.session_id)
