"""The release before this one keeps working on the schema of this one, so both may run side by side."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx2
import pytest

from db.migrate import migrate, read_migrations
from tests.acceptance.aftermath import assert_nothing_in_progress, database
from tests.acceptance.client import crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.postgres import TestServer
from tests.waiting import eventually

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

BEFORE = json.loads((Path(__file__).parent / "previous" / "statements.json").read_text())
TALKS = 6
PIECES = 60

COLUMNS = """
    SELECT c.relname || '.' || a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
        a.attnotnull AND d.adbin IS NULL AND a.attgenerated = '' AND a.attidentity = '' AS must_be_given
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
RULES = """
    SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'f', 'x')
    UNION ALL
    SELECT indrelid::regclass || ' ' || pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""
A_LATER_ONE = """
    ALTER TABLE runs ADD COLUMN later text;
    ALTER TABLE messages ADD COLUMN later int NOT NULL DEFAULT 7;
    ALTER TABLE journals ADD COLUMN later jsonb;
    ALTER TABLE sessions ADD COLUMN later text;
    ALTER TABLE events ADD COLUMN later text;
    ALTER TABLE users ADD COLUMN later boolean NOT NULL DEFAULT false;
    CREATE TABLE later (id uuid PRIMARY KEY);
    INSERT INTO schema_migrations (version, name, sha256) SELECT max(version) + 1, 'later', '' FROM schema_migrations
"""


@pytest.fixture
async def today(database_url: str) -> AsyncGenerator["Connection", None]:
    async with database(database_url) as connection:
        yield connection


@pytest.fixture
async def then(postgres: TestServer, tmp_path: Path) -> AsyncGenerator["Connection", None]:
    """A connection to a database with the schema of the release before."""
    for migration in read_migrations()[: BEFORE["schema"]]:
        (tmp_path / f"{migration.version:04}_{migration.name}.sql").write_text(migration.sql)
    async with postgres.database("template1") as url:
        await migrate(url, tmp_path)
        async with database(url) as connection:
            yield connection


async def test_every_statement_of_the_release_before_is_still_understood(today: "Connection") -> None:
    assert len(BEFORE["statements"]) > 100
    for place, statement in BEFORE["statements"].items():
        try:
            await today.prepare(statement)
        except asyncpg.PostgresError as error:
            raise AssertionError(f"{place} of the release before is not understood any more: {error}") from error


async def test_what_the_release_before_reads_is_there_and_it_need_not_give_more(
    today: "Connection", then: "Connection"
) -> None:
    now = {row["name"]: row for row in await today.fetch(COLUMNS)}
    before = {row["name"]: row for row in await then.fetch(COLUMNS)}
    assert {name for name in before if name not in now} == set(), "columns that are gone"
    assert {name for name in before if now[name]["type"] != before[name]["type"]} == set(), "columns of another type"
    stricter = {name for name in before if now[name]["must_be_given"] > before[name]["must_be_given"]}
    assert stricter == set(), "columns that may not be left out any more"
    tables = {name.partition(".")[0] for name in before}
    new = [row for name, row in now.items() if name not in before and name.partition(".")[0] in tables]
    assert [row["name"] for row in new if row["must_be_given"]] == []


async def test_no_rule_forbids_what_the_release_before_does(today: "Connection", then: "Connection") -> None:
    before = {row[0] for row in await then.fetch(RULES)}
    columns = {row["name"] for row in await then.fetch(COLUMNS)}
    tables = {name.partition(".")[0] for name in columns}
    new = [row[0] for row in await today.fetch(RULES) if row[0] not in before]
    about_old_tables = [
        rule for rule in new if rule.split()[0].partition("_")[0] in tables or rule.split()[0] in tables
    ]
    # Each of these is about a column that the release before does not know, and leaves empty.
    assert [rule for rule in about_old_tables if "email" not in rule] == []


async def test_a_running_service_goes_on_while_a_newer_one_migrates(
    database_url: str, model: Narrator, start: StartService
) -> None:
    chance = random.Random(14)
    stories = [story(chance, PIECES) for _ in range(TALKS)]
    for number, pieces in enumerate(stories):
        model.tell(f"story {number}", *at_pace(pieces, 0.02))
    service = await start(database_url)
    async with crowd(service, TALKS) as clients, httpx2.AsyncClient(base_url=service.address, timeout=30) as http:
        for client in clients:  # every statement has been prepared once
            await client.insist(service, "warm up", "warm up")
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(client.insist(service, f"story {number}", f"story {number}"))
                for number, client in enumerate(clients)
            ]
            await eventually(lambda: sum(len(client.events) for client in clients) > TALKS * 25, 20)
            async with database(database_url) as newer, newer.transaction():
                await newer.execute(A_LATER_ONE)
            assert (await http.get("/readyz")).status_code == 200
        for client, run, pieces in zip(clients, asked, stories, strict=True):
            assert client.end(run.result())["finish_reason"] == "stop"
            assert client.text(run.result()) == "".join(pieces)
        for number, client in enumerate(clients):
            run_id = await client.insist(service, f"and then, {number}?", f"and then, {number}?")
            assert client.end(run_id)["finish_reason"] == "stop"
            path = f"/api/sessions/{client.session_id}"
            assert (await http.patch(path, json={"title": "later"})).status_code == 200
            kept = await http.post(f"{path}/files", files={"file": ("a.txt", b"text")})
            assert kept.status_code == 201
    await assert_nothing_in_progress(database_url, model, service)
