"""What is restored is what was there, or nothing at all."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from db.migrate import Migration, migrate, read_migrations
from db.refill import BackupFromElsewhere, DatabaseInUse, DatabaseNotEmpty, NotOurs, RowsRefused
from services.backup.archive import reading
from services.backup.manifest import BadBackup
from services.backup.restoring import restore, verify
from services.backup.saving import save
from tests.integration.test_migrate import shape
from tests.papers import picture
from tests.postgres import TestServer
from tests.service import local_settings, running_service
from tests.waiting import eventually

KNOWN = read_migrations()
SEED = random.Random(17)
BYTES = b"\x00\xff some bytes\n" * 1000
MIB_MORE = 25
"""What some hundred MiB more may cost: the rows here have a MiB each."""
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
ANOTHER_LIFE = {"journal_epoch", "file_vault", "schema_migrations"}
"""What is not the same after a restore."""


@pytest.fixture(scope="module")
async def lived_in_once(
    postgres: TestServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[str, Path], None]:
    """The name of a database in which somebody has talked, uploaded and painted, and what lies beside it."""
    data_dir = tmp_path_factory.mktemp("lived") / "data"
    async with postgres.database(migrated_template) as url:
        async with (
            running_service(local_settings(data_dir=data_dir, first_run_content=True), url) as base_url,
            httpx2.AsyncClient(base_url=base_url, timeout=30) as http,
        ):
            session = (await http.post("/api/sessions", json={})).json()["id"]
            for content in ("Hello", 'A "quoted"\ttab, a \\ backslash,\na line, naïve 日本語 🙂 and \\N'):
                sent = await http.post(f"/api/sessions/{session}/messages", json={"content": content})
                assert sent.status_code == 200
            await uploaded(http, session, BYTES)
            painted = await http.post("/api/personas/upload-image", files={"file": ("a.png", picture(), "image/png")})
            assert painted.status_code == 201, painted.text
        yield urlsplit(url).path.strip("/"), data_dir


@pytest.fixture
def data_dir(lived_in_once: tuple[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived_in_once[1], tmp_path / "data"))


@pytest.fixture
async def lived_in(postgres: TestServer, lived_in_once: tuple[str, Path]) -> AsyncGenerator[str, None]:
    """A copy of that database."""
    async with postgres.database(lived_in_once[0]) as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


async def uploaded(http: httpx2.AsyncClient, session: str, data: bytes) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session}/files", files={"file": ("a.bin", data, "text/plain")})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def contents(url: str) -> dict[str, str]:
    """A digest of each table's rows."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
        digest = "SELECT md5(string_agg(md5(t::text), ',' ORDER BY md5(t::text))) FROM {} t"
        return {table["name"]: await connection.fetchval(digest.format(table["name"])) for table in tables}
    finally:
        await connection.close()


async def run(url: str, statement: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


def on_disk(data_dir: Path) -> dict[str, bytes]:
    """The bytes of all files and pictures, by name."""
    found = [path for path in (*data_dir.glob("files/*/??/*"), *data_dir.glob("images/*/*")) if path.is_file()]
    return {path.name: path.read_bytes() for path in found}


async def test_everything_comes_back_byte_for_byte(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    restored = await restore(empty_database_url, tmp_path / "elsewhere", file, KNOWN, replace=False)

    assert restored.rows > 50
    assert on_disk(tmp_path / "elsewhere") == on_disk(data_dir)
    assert len(on_disk(data_dir)) == 2
    before, after = await contents(lived_in), await contents(empty_database_url)
    assert {name for name in before if before[name] != after[name]} == ANOTHER_LIFE
    assert await shape(empty_database_url) == await shape(lived_in)
    # What the database computes by itself goes on being computed.
    words = "SELECT count(*) FROM message_words w JOIN messages m ON m.id = w.message_id"
    assert await run(empty_database_url, words) == await run(empty_database_url, "SELECT count(*) FROM messages") > 0
    session = await run(empty_database_url, "SELECT id FROM sessions LIMIT 1")
    await run(
        empty_database_url,
        "INSERT INTO messages (id, session_id, role, content, token_count) VALUES ($1, $2, 'user', 'new', 1)",
        new_id(),
        session,
    )
    assert await run(empty_database_url, words) == await run(empty_database_url, "SELECT count(*) FROM messages")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await run(empty_database_url, "INSERT INTO sessions (id, owner_id) VALUES ($1, $1)", new_id())


async def test_a_restored_service_answers_and_its_past_is_another(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    elsewhere = tmp_path / "elsewhere"
    await restore(empty_database_url, elsewhere, file, KNOWN, replace=False)
    epochs = [await run(url, "SELECT epoch FROM journal_epoch") for url in (lived_in, empty_database_url)]
    assert epochs[0] != epochs[1]
    async with (
        running_service(local_settings(data_dir=elsewhere), empty_database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url, timeout=30) as http,
    ):
        session = (await http.get("/api/sessions")).json()["items"][0]["id"]
        (kept,) = (await http.get(f"/api/sessions/{session}/files")).json()["items"]
        assert (await http.get(kept["url"])).content == BYTES
        assert (await http.post(f"/api/sessions/{session}/messages", json={"content": "Again"})).status_code == 200


async def test_what_was_running_is_closed_by_who_starts_first(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    session = await run(lived_in, "SELECT id FROM sessions LIMIT 1")
    for number, state in enumerate(("running", "queued")):
        await run(
            lived_in,
            """
            INSERT INTO runs (id, session_id, owner_id, client_message_id, user_message_id, state, request, first_seq,
                started_at)
            SELECT $1, $2, $3, $4, m.id, $4, r.request, j.last_seq + 1 + $5, now()
            FROM journals j JOIN messages m USING (session_id) JOIN runs r USING (session_id)
            WHERE j.session_id = $2 LIMIT 1
            """,
            new_id(),
            session,
            LOCAL_OWNER,
            state,
            number,
        )
    await run(
        lived_in,
        """
        UPDATE journals SET run_id = (SELECT id FROM runs WHERE state = 'running'), replica_id = $1,
            lease_until = now() + interval '1 hour'
        """,
        new_id(),
    )
    await save(lived_in, data_dir, file, version="1")
    await restore(empty_database_url, tmp_path / "elsewhere", file, KNOWN, replace=False)
    async with running_service(local_settings(data_dir=tmp_path / "elsewhere"), empty_database_url) as base_url:
        async with httpx2.AsyncClient(base_url=base_url, timeout=30) as http:
            assert (await http.get("/readyz")).status_code == 200
        await eventually(lambda: nothing_runs(empty_database_url), 15)
    reasons = "SELECT array_agg(finish_reason) FROM runs WHERE client_message_id IN ('running', 'queued')"
    assert await run(empty_database_url, reasons) == ["interrupted", "interrupted"]


async def nothing_runs(url: str) -> bool:
    return await run(url, "SELECT count(*) FROM runs WHERE state <> 'finished'") == 0


async def test_files_that_come_and_go_meanwhile_leave_no_row_without_its_bytes(
    database_url: str, empty_database_url: str, tmp_path: Path, file: Path
) -> None:
    data_dir = tmp_path / "data"
    async with (
        running_service(local_settings(data_dir=data_dir), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url, timeout=30) as http,
    ):
        session = (await http.post("/api/sessions", json={})).json()["id"]
        kept = [await uploaded(http, session, os.urandom(1000)) for _ in range(40)]

        async def churn() -> None:
            while True:
                new = await uploaded(http, session, os.urandom(1000))
                await http.delete(kept.pop(SEED.randrange(len(kept)))["url"])
                kept.append(new)

        churning = asyncio.create_task(churn())
        for number in range(3):
            backup = file.with_name(f"{number}.zip")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "api", "backup", str(backup)),
                env={**os.environ, "DATABASE_URL": database_url, "DATA_DIR": str(data_dir)},
                stdout=subprocess.DEVNULL,
            )
            assert await process.wait() == 0
        churning.cancel()
        await asyncio.wait([churning])
    for number in range(3):
        elsewhere = tmp_path / f"elsewhere-{number}"
        await restore(empty_database_url, elsewhere, file.with_name(f"{number}.zip"), KNOWN, replace=number > 0)
        named = await run(empty_database_url, "SELECT array_agg(id::text ORDER BY id::text) FROM files")
        assert len(named) >= 39
        assert sorted(on_disk(elsewhere)) == named


async def test_a_file_that_was_lost_before_is_named_and_costs_no_more_than_itself(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    (lost,) = data_dir.glob("files/*/??/*")
    lost.unlink()
    saved = await save(lived_in, data_dir, file, version="1")

    assert saved.lost == 1
    assert (await verify(file)).lost == (lost.name,)
    await restore(empty_database_url, tmp_path / "elsewhere", file, KNOWN, replace=False)
    assert await run(empty_database_url, "SELECT count(*) FROM files") == 0


async def test_a_backup_that_is_cut_short_is_refused_and_nothing_changes(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    whole = file.read_bytes()
    for length in (0, 1, 1000, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BadBackup, match="no whole backup"):
            await restore(empty_database_url, tmp_path / "elsewhere", file, KNOWN, replace=True)
    assert (
        await run(empty_database_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    )
    assert not (tmp_path / "elsewhere").exists()


async def test_no_changed_byte_goes_unnoticed(lived_in: str, data_dir: Path, file: Path) -> None:
    await save(lived_in, data_dir, file, version="1")
    whole = file.read_bytes()
    with reading(file) as archive:
        before = {name: b"".join(archive.pieces(name)) for name in archive.names}
    refused = 0
    for position in SEED.sample(range(len(whole)), 200):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            await verify(file)
        except BadBackup:
            refused += 1
            continue
        # Where dates and rights of entries stand, which nobody reads.
        with reading(file) as archive:
            assert {name: b"".join(archive.pieces(name)) for name in archive.names} == before
    assert refused > 120


async def test_rows_that_do_not_fit_change_nothing(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    # A user is missing to whom everything belongs.
    await run(lived_in, "ALTER TABLE sessions DROP CONSTRAINT sessions_owner_id_fkey")
    await run(lived_in, "UPDATE sessions SET owner_id = $1", new_id())
    await save(lived_in, data_dir, file, version="1")

    with pytest.raises(RowsRefused, match="nothing was changed"):
        await restore(empty_database_url, tmp_path / "elsewhere", file, KNOWN, replace=False)
    assert (
        await run(empty_database_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    )
    assert list((tmp_path / "elsewhere" / "files").iterdir()) == []


async def test_what_is_there_is_not_lost_by_mistake(
    lived_in: str, postgres: TestServer, data_dir: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    before = await contents(lived_in)
    with pytest.raises(DatabaseNotEmpty, match="--replace"):
        await restore(lived_in, data_dir, file, KNOWN, replace=False)
    await run(lived_in, "INSERT INTO replicas (id) VALUES ($1)", new_id())
    with pytest.raises(DatabaseInUse, match="stop it first"):
        await restore(lived_in, data_dir, file, KNOWN, replace=True)
    await run(lived_in, "DELETE FROM replicas")
    async with postgres.database("template1") as strange:
        await run(strange, "CREATE TABLE invoices (id int)")
        with pytest.raises(NotOurs):
            await restore(strange, data_dir, file, KNOWN, replace=True)
    assert await contents(lived_in) == before


async def test_in_the_place_of_another_database_only_the_backup_is_left(
    lived_in: str, data_dir: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    before, disk = await contents(lived_in), on_disk(data_dir)
    await run(lived_in, "DELETE FROM messages")
    await run(lived_in, "UPDATE users SET display_name = 'Somebody else'")
    await restore(lived_in, data_dir, file, KNOWN, replace=True)

    after = await contents(lived_in)
    assert {name for name in before if before[name] != after[name]} == ANOTHER_LIFE
    assert on_disk(data_dir) == disk
    assert len(list((data_dir / "files").iterdir())) == 1, "the folder of before is gone"


async def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    postgres: TestServer, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    old = tmp_path / "migrations"
    old.mkdir()
    for migration in KNOWN[:-2]:
        (old / f"{migration.version:04}_{migration.name}.sql").write_text(migration.sql)
    async with postgres.database("template1") as before, postgres.database("template1") as after:
        await migrate(before, old)
        await run(before, "INSERT INTO users (id, display_name) VALUES ($1, 'Ada')", new_id())
        await save(before, data_dir, file, version="0")
        await restore(after, data_dir, file, KNOWN, replace=False)
        assert await run(after, "SELECT display_name FROM users") == "Ada"
        assert await shape(after) == await shape_of_today(postgres)


async def shape_of_today(postgres: TestServer) -> Any:
    async with postgres.database("template1") as url:
        await migrate(url)
        return await shape(url)


async def test_a_backup_of_a_newer_or_another_schema_is_refused(
    lived_in: str, empty_database_url: str, data_dir: Path, file: Path
) -> None:
    await save(lived_in, data_dir, file, version="1")
    with pytest.raises(BackupFromElsewhere, match="knows only up to"):
        await restore(empty_database_url, data_dir, file, KNOWN[:-1], replace=False)
    other = [*KNOWN[:-1], Migration(KNOWN[-1].version, KNOWN[-1].name, "SELECT 1")]
    with pytest.raises(BackupFromElsewhere, match="another migration"):
        await restore(empty_database_url, data_dir, file, other, replace=False)


async def test_the_secret_key_is_in_it_only_if_asked_for(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path, file: Path
) -> None:
    key = data_dir / "secret_key"
    key.write_bytes(b"k" * 40)
    await save(lived_in, data_dir, file, version="1")
    assert b"k" * 40 not in file.read_bytes()
    with_key = file.with_name("with-key.zip")
    await save(lived_in, data_dir, with_key, version="1", secret_key=key)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret_key").write_bytes(b"another")
    with pytest.raises(BadBackup, match="another secret key"):
        await restore(empty_database_url, elsewhere, with_key, KNOWN, replace=False)
    (elsewhere / "secret_key").unlink()
    await restore(empty_database_url, elsewhere, with_key, KNOWN, replace=False)
    assert (elsewhere / "secret_key").read_bytes() == b"k" * 40
    assert (elsewhere / "secret_key").stat().st_mode & 0o777 == 0o600


async def test_an_entry_that_would_lie_elsewhere_is_refused(lived_in: str, data_dir: Path, file: Path) -> None:
    await save(lived_in, data_dir, file, version="1")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("files/../../evil", b"")
    with pytest.raises(BadBackup, match="no backup has"):
        await verify(file)


async def test_a_file_that_is_there_is_not_written_over(lived_in: str, data_dir: Path, file: Path) -> None:
    file.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        await save(lived_in, data_dir, file, version="1")
    assert file.read_bytes() == b"precious"
    assert list(file.parent.glob("*.part")) == []


async def test_what_somebody_has_put_in_the_place_of_a_draft_is_neither_written_to_nor_kept(
    lived_in: str, data_dir: Path, file: Path
) -> None:
    theirs = file.with_name("theirs")
    theirs.write_bytes(b"precious")
    theirs.chmod(0o666)
    draft = file.with_name(f"{file.name}.part")
    for put in (draft.symlink_to, draft.hardlink_to):
        put(theirs)
        await save(lived_in, data_dir, file, version="1")
        assert theirs.read_bytes() == b"precious"
        assert file.stat().st_mode & 0o777 == 0o600
        file.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_memory_does_not_grow_with_what_there_is(
    lived_in: str, empty_database_url: str, data_dir: Path, tmp_path: Path
) -> None:
    small = await peak("backup", lived_in, data_dir, tmp_path / "small.zip")
    session: UUID = await run(lived_in, "SELECT id FROM sessions LIMIT 1")
    for _ in range(25):
        await run(
            lived_in,
            """
            INSERT INTO messages (id, session_id, role, content, token_count)
            SELECT $1, $2, 'user', string_agg(md5(random()::text), ' '), 1 FROM generate_series(1, 30000)
            """,
            new_id(),
            session,
        )
    (place,) = data_dir.glob("files/*/??/*")
    place.write_bytes(os.urandom(60_000_000))
    assert await peak("backup", lived_in, data_dir, tmp_path / "large.zip") - small < MIB_MORE
    assert await peak("restore", empty_database_url, tmp_path / "elsewhere", tmp_path / "large.zip") - small < MIB_MORE


async def peak(command: str, url: str, data_dir: Path, file: Path) -> float:
    """MiB that the command has used at most."""
    code = (
        "import sys; from api.commands import main; code = main(sys.argv[1:]); "
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(code)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, command, str(file)),
        env={**os.environ, "DATABASE_URL": url, "DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    return int(said.splitlines()[-1]) / 1024
