"""What a database can rely on when Colloquy brings it to its schema."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from db.migrate import LOCK, MIGRATIONS, migrate, read_migrations
from db.refusals import (
    DatabaseTooNew,
    DatabaseUnreachable,
    MigrationChanged,
    MigrationFailed,
    MigrationsMisnumbered,
)
from tests.postgres import TestServer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path, "0001_first.sql", "create table first (id int)")
    write(tmp_path, "0002_second.sql", "create table second (id int); insert into second values (1)")
    return tmp_path


def write(directory: Path, name: str, sql: str) -> None:
    (directory / name).write_text(sql)


async def query(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_files_are_applied_in_order_and_only_once(empty_database_url: str, directory: Path) -> None:
    first = await migrate(empty_database_url, directory)
    second = await migrate(empty_database_url, directory)

    assert [migration.name for migration in first] == ["first", "second"]
    assert second == []
    assert await query(empty_database_url, "select count(*) from second") == [(1,)]


async def test_a_new_file_is_applied_to_an_old_database(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    write(directory, "0003_third.sql", "alter table first add column name text")

    assert [migration.version for migration in await migrate(empty_database_url, directory)] == [3]


async def test_a_failing_file_leaves_nothing_of_itself_and_keeps_the_ones_before(
    empty_database_url: str, directory: Path
) -> None:
    write(directory, "0003_third.sql", "create table third (id int); select 1/0")

    with pytest.raises(MigrationFailed, match="0003_third failed: division by zero"):
        await migrate(empty_database_url, directory)

    assert await query(empty_database_url, "select to_regclass('second') is null, to_regclass('third') is null") == [
        (False, True)
    ]
    assert await query(empty_database_url, "select max(version) from schema_migrations") == [(2,)]


async def test_starters_at_the_same_moment_apply_each_file_once(empty_database_url: str, directory: Path) -> None:
    # Slow enough that all of them arrive before the first one is through.
    write(directory, "0003_slow.sql", "select pg_sleep(0.2); create table third (id int)")

    answers = await asyncio.gather(*(migrate(empty_database_url, directory) for _ in range(6)))

    assert sorted(len(applied) for applied in answers) == [0, 0, 0, 0, 0, 3]
    assert await query(empty_database_url, "select count(*) from second") == [(1,)]


async def test_an_edited_file_is_refused_by_name(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    write(directory, "0001_first.sql", "create table first (id bigint)")

    with pytest.raises(MigrationChanged, match="0001_first was edited"):
        await migrate(empty_database_url, directory)


async def test_another_style_of_line_ends_is_not_an_edit(empty_database_url: str, directory: Path) -> None:
    write(directory, "0001_first.sql", "create table first (\n  id int\n)\n")
    await migrate(empty_database_url, directory)
    (directory / "0001_first.sql").write_bytes(b"create table first (\r\n  id int\r\n)\r\n")

    assert await migrate(empty_database_url, directory) == []


async def test_a_database_of_a_newer_version_is_left_alone(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    (directory / "0002_second.sql").unlink()

    with pytest.raises(DatabaseTooNew, match="has schema 2, this Colloquy knows only up to 1"):
        await migrate(empty_database_url, directory)


@pytest.mark.parametrize("name", ["0004_gap.sql", "0002_again.sql", "third.sql", "0003-dash.sql"])
async def test_misnumbered_files_are_refused_before_anything_is_touched(directory: Path, name: str) -> None:
    write(directory, name, "select 1")

    with pytest.raises(MigrationsMisnumbered, match="should be 000"):
        await migrate("postgresql://nobody@127.0.0.1:1/none", directory)


async def test_who_has_nothing_to_apply_waits_for_nobody(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    busy = await asyncpg.connect(empty_database_url)
    try:
        await busy.execute("SELECT pg_advisory_lock_shared($1)", LOCK)
        assert await asyncio.wait_for(migrate(empty_database_url, directory), 30) == []
    finally:
        await busy.close()


async def test_a_database_that_does_not_answer_is_named_as_such(directory: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="DATABASE_URL does not answer") as refusal:
        await migrate("postgresql://me:secret@127.0.0.1:1/none", directory)

    assert "secret" not in str(refusal.value)


async def test_schema_sql_and_the_migrations_make_the_same_database(postgres: TestServer) -> None:
    async with postgres.database("template1") as migrated, postgres.database("template1") as written:
        await migrate(migrated)
        connection = await asyncpg.connect(written)
        await connection.execute((MIGRATIONS.parent / "schema.sql").read_text())
        await connection.close()

        assert await shape(written) == await shape(migrated)


def test_every_migration_of_ours_is_numbered() -> None:
    assert [migration.version for migration in read_migrations()] == list(range(1, len(read_migrations()) + 1))


async def shape(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All that a schema consists of, by kind. The migrations' own table is not part of it."""
    return {kind: await query(url, sql) for kind, sql in CATALOG.items()}


CATALOG = {
    "columns": """
        select c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity::text, a.attgenerated::text, pg_get_expr(d.adbin, d.adrelid), a.attstorage::text
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S') and a.attnum > 0
              and not a.attisdropped and c.relname <> 'schema_migrations'
        order by 1, 3
    """,
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = 'public'::regnamespace and conrelid::regclass::text <> 'schema_migrations'
        order by 1, 2
    """,
    "indexes": """
        select tablename, indexname, indexdef from pg_indexes
        where schemaname = 'public' and tablename <> 'schema_migrations' order by 1, 2
    """,
    "views": "select viewname, definition from pg_views where schemaname = 'public' order by 1",
    "functions": """
        select proname, pg_get_functiondef(oid) from pg_proc
        where pronamespace = 'public'::regnamespace and prokind in ('f', 'p') order by 1, 2
    """,
    "triggers": """
        select tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) from pg_trigger
        where not tgisinternal order by 1, 2
    """,
    "types": """
        select t.typname, array_agg(e.enumlabel order by e.enumsortorder)::text
        from pg_type t left join pg_enum e on e.enumtypid = t.oid
        where t.typnamespace = 'public'::regnamespace and t.typtype in ('e', 'd') group by 1 order by 1
    """,
    "settings of tables": """
        select relname, reloptions::text from pg_class
        where relnamespace = 'public'::regnamespace and reloptions is not null order by 1
    """,
    "comments": """
        select c.relname, d.objsubid, d.description from pg_description d join pg_class c on c.oid = d.objoid
        where c.relnamespace = 'public'::regnamespace order by 1, 2
    """,
}
