"""What modules leave is stored as a whole, by nobody but who may, and read as a whole by the next turn."""

import random
from typing import Any

import asyncpg
import pytest

from db.ids import MessageId, ModuleId, UserId, new_id
from db.pool import Database
from db.stores.modules import ModuleStore
from db.stores.run_traces import RunTraceStore
from db.stores.turns import NewResult, NewTrace, TurnRow, TurnStore
from tests.integration.stores.conftest import Owner, hold

NOBODY = MessageId(new_id())


@pytest.fixture
def store(pool: Database) -> TurnStore:
    return TurnStore(pool)


async def make(pool: Database, owner: Owner, name: str, **fields: Any) -> ModuleId:
    return (await ModuleStore(pool).create(ModuleId(new_id()), owner.id, {"name": name, **fields})).id


@pytest.fixture
async def made(pool: Database, owner: Owner) -> list[ModuleId]:
    """Two modules of the owner."""
    return [await make(pool, owner, name) for name in ("a", "b")]


async def read(
    store: TurnStore,
    owner: Owner,
    *names: str,
    ids: list[ModuleId] | None = None,
    leaf: MessageId = NOBODY,
    by: UserId | None = None,
    levels: int = 8,
    turns: int = 1,
    steps: int = 400,
) -> TurnRow:
    return await store.read(
        owner.session_id,
        by or owner.id,
        leaf,
        names=names,
        ids=ids or [],
        levels=levels,
        turns=turns,
        steps=steps,
    )


# --- keeping -------------------------------------------------------------------------------------------------------


async def test_results_variables_and_trace_of_a_run_are_kept_together(
    store: TurnStore, pool: Database, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    a, b = made
    run, fence = owner.runs[0], await hold(database, owner, 0)
    given = [
        NewResult(a, "spoke", "good", {"x": 1}, {"count": 1, "kept": [1, {"x": None}]}),
        NewResult(b, "spoke", "", {}, {"count": 9}),
    ]

    assert await store.keep(run, owner.id, given, fence=fence, trace=NewTrace("Be brief.", {"modules": []}))

    row = await read(store, owner, "a", "b")
    assert {id: (r.run_id, r.state, r.text, r.outputs) for id, r in row.results.items()} == {
        a: (run, "spoke", "good", {"x": 1}),
        b: (run, "spoke", "", {}),
    }
    assert row.variables == {a: {"count": 1, "kept": [1, {"x": None}]}, b: {"count": 9}}
    trace = await RunTraceStore(pool).get(run, owner.id)
    assert trace
    assert (trace.prompt, trace.trace, trace.session_id) == ("Be brief.", {"modules": []}, owner.session_id)


async def test_variables_that_a_run_did_not_set_stay(
    store: TurnStore, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    for run, variables in enumerate(({"n": 1, "kept": 1}, {"n": 2, "nothing": None})):
        given = [NewResult(made[0], "spoke", "", {}, variables)]
        await store.keep(owner.runs[run], owner.id, given, fence=await hold(database, owner, run))

    assert (await read(store, owner, "a")).variables == {made[0]: {"n": 2, "kept": 1, "nothing": None}}


async def test_the_newest_run_decides_on_results_and_variables_in_whatever_order_they_arrive(
    store: TurnStore, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    order = [0, 1, 2, 2, 1]
    random.shuffle(order)

    for run in order:
        given = [NewResult(made[0], "spoke", f"of {run}", {"run": run}, {"run": run})]
        assert await store.keep(owner.runs[run], owner.id, given, fence=await hold(database, owner, run))

    row = await read(store, owner, "a")
    newest = row.results[made[0]]
    assert (newest.text, newest.outputs, newest.run_id) == ("of 2", {"run": 2}, owner.runs[2])
    assert row.variables == {made[0]: {"run": 2}}


async def test_a_failure_keeps_the_last_good_text(
    store: TurnStore, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    good = [NewResult(made[0], "spoke", "good", {"x": 1}, {"n": 1})]
    await store.keep(owner.runs[0], owner.id, good, fence=await hold(database, owner, 0))

    failed = [NewResult(module, "failed") for module in made]
    await store.keep(owner.runs[1], owner.id, failed, fence=await hold(database, owner, 1))

    row = await read(store, owner, "a", "b")
    assert [(row.results[m].state, row.results[m].text, row.results[m].outputs) for m in made] == [
        ("failed", "good", {"x": 1}),
        ("failed", "", {}),
    ]
    assert row.variables == {made[0]: {"n": 1}}


async def test_whoever_lost_the_lease_writes_nothing(
    store: TurnStore, pool: Database, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    given = [NewResult(made[0], "spoke", "late", {}, {"n": 1})]
    old = await hold(database, owner, 0)
    await hold(database, owner, 0)

    assert not await store.keep(owner.runs[0], owner.id, given, fence=old, trace=NewTrace("late", {}))

    row = await read(store, owner, "a")
    assert (row.results, row.variables) == ({}, {})
    assert await RunTraceStore(pool).get(owner.runs[0], owner.id) is None


async def test_work_after_a_reply_writes_under_its_own_fence_and_adds_to_the_trace(
    store: TurnStore, pool: Database, database: asyncpg.Connection, owner: Owner, made: list[ModuleId]
):
    run = owner.runs[0]
    trace = NewTrace("Be brief.", {"modules": ["a"]})
    await store.keep(run, owner.id, [], fence=await hold(database, owner, 0), trace=trace)
    await database.execute("update journals set run_id = null where session_id = $1", owner.session_id)
    await database.execute(
        """
        insert into post_responses (run_id, session_id, owner_id, position, state, fence)
        values ($1, $2, $3, 1, 'working', 7)
        """,
        run,
        owner.session_id,
        owner.id,
    )
    given = [NewResult(made[0], "spoke", "after", {}, {"n": 1})]

    for _ in range(2):
        assert await store.keep(run, owner.id, given, fence=7, after={"a": {"state": "spoke"}})
    assert await store.keep(run, owner.id, [], fence=7, after={"b": {"state": "silent"}})
    assert not await store.keep(run, owner.id, [NewResult(made[0], "spoke", "evil")], fence=6, after={"c": {}})

    found = await RunTraceStore(pool).get(run, owner.id)
    assert found
    assert found.trace == {"modules": ["a"], "after": {"a": {"state": "spoke"}, "b": {"state": "silent"}}}
    row = await read(store, owner, "a")
    assert row.results[made[0]].text == "after"
    assert row.variables == {made[0]: {"n": 1}}


async def test_results_of_foreign_runs_and_for_foreign_modules_go_nowhere(
    store: TurnStore,
    pool: Database,
    database: asyncpg.Connection,
    owner: Owner,
    stranger: Owner,
    made: list[ModuleId],
):
    theirs, ours = await hold(database, stranger, 0), await hold(database, owner, 0)
    given = [NewResult(made[0], "spoke", "x", {}, {"x": 1}), NewResult(ModuleId(new_id()), "spoke", "x")]
    trace = NewTrace("Be evil.", {})

    assert not await store.keep(stranger.runs[0], owner.id, given, fence=theirs, trace=trace)
    assert not await store.keep(owner.runs[0], stranger.id, given, fence=ours, trace=trace)
    assert await store.keep(stranger.runs[0], stranger.id, given, fence=theirs)

    row = await read(store, owner, "a", "b")
    assert (row.results, row.variables) == ({}, {})
    assert await RunTraceStore(pool).get(owner.runs[0], owner.id) is None
    assert not await database.fetchval("select count(*) from module_results where module_id = $1", made[0])


async def test_the_trace_is_its_owners_alone(
    store: TurnStore, pool: Database, database: asyncpg.Connection, owner: Owner, stranger: Owner
):
    fence = await hold(database, owner, 0)
    await store.keep(owner.runs[0], owner.id, [], fence=fence, trace=NewTrace("Be kind.", {"modules": []}))

    assert await RunTraceStore(pool).get(owner.runs[0], owner.id)
    assert await RunTraceStore(pool).get(owner.runs[0], stranger.id) is None


# --- reading -------------------------------------------------------------------------------------------------------


async def test_modules_are_found_by_name_by_id_and_through_what_they_use(
    store: TurnStore, pool: Database, owner: Owner, stranger: Owner
):
    a = await make(pool, owner, "a", refers_to=["b", "nobody"])
    b = await make(pool, owner, "b", analysis={"references": ["c"]})
    c = await make(pool, owner, "c", refers_to=["a"])
    d = await make(pool, owner, "d", is_active=False)
    await make(pool, owner, "e")
    theirs = await make(pool, stranger, "a")

    row = await read(store, owner, "a", "nothing", ids=[a, d, theirs])

    assert row.versions == dict.fromkeys((a, b, c, d), 1)
    assert (await read(store, owner, "a", by=stranger.id)).versions == {theirs: 1}


async def test_modules_are_followed_only_so_deep(store: TurnStore, pool: Database, owner: Owner):
    ids = [await make(pool, owner, f"m{level}", refers_to=[f"m{level + 1}"]) for level in range(6)]

    row = await read(store, owner, "m0", levels=3)

    assert row.versions == dict.fromkeys(ids[:4], 1)


async def test_what_belongs_to_another_owners_session_is_not_read(
    store: TurnStore, database: asyncpg.Connection, owner: Owner, stranger: Owner, made: list[ModuleId]
):
    leaf = (await say(database, owner, "secret"))[-1]
    fence = await hold(database, owner, 0)
    await store.keep(owner.runs[0], owner.id, [NewResult(made[0], "spoke", "x", {}, {"x": 1})], fence=fence)

    row = await read(store, owner, "a", ids=made, leaf=leaf, by=stranger.id)

    assert row == TurnRow({}, {}, {}, [])


async def test_as_many_user_texts_are_read_as_any_module_looks_at(
    store: TurnStore, pool: Database, database: asyncpg.Connection, owner: Owner
):
    await make(pool, owner, "near")
    await make(pool, owner, "far", trigger_depth=3)
    said = await say(database, owner, "one", "1", "two", "2", "three", "3", "four")

    assert (await read(store, owner, "near", leaf=said[-1])).user_texts == ["four"]
    assert (await read(store, owner, "near", leaf=said[-1], turns=2)).user_texts == ["four", "three"]
    assert (await read(store, owner, "near", "far", leaf=said[-1])).user_texts == ["four", "three", "two"]
    assert (await read(store, owner, "far", leaf=said[-1], steps=3)).user_texts == ["four", "three"]
    assert (await read(store, owner, "far", leaf=said[2])).user_texts == ["two", "one"]


async def say(database: asyncpg.Connection, owner: Owner, *contents: str) -> list[MessageId]:
    """User and assistant in turn; the ids."""
    ids = [MessageId(new_id()) for _ in contents]
    for number, content in enumerate(contents):
        await database.execute(
            """
            insert into messages (id, session_id, parent_id, role, content, token_count) values ($1, $2, $3, $4, $5, 1)
            """,
            ids[number],
            owner.session_id,
            ids[number - 1] if number else None,
            "assistant" if number % 2 else "user",
            content,
        )
    return ids
