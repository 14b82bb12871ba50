"""What the service can rely on from the PostgreSQL that it starts itself."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from db.binaries import Binaries, find_binaries
from db.embedded import EmbeddedPostgres
from db.orphans import server_process
from db.refusals import AlreadyRunning, DirectoryNotOurs, NoUsablePostgres, OtherMajorVersion, ServerDidNotStart
from tests.postgres import DurablePostgres, memory_directory
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))


@pytest.fixture
def directory() -> Generator[Path, None, None]:
    # Not tmp_path: its name is too long for a socket, which is a test of its own.
    with tempfile.TemporaryDirectory(prefix="colloquy-", dir=memory_directory()) as name:
        yield Path(name) / "postgres"


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@contextmanager
def owner(directory: Path, *prefix: str) -> Generator[tuple[subprocess.Popen[str], int, str], None, None]:
    """Another process that owns a server in `directory`; the server's pid and DSN."""
    command = [*prefix, sys.executable, "-m", "tests.owner", str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"exit code {process.wait(10)}"
        pid, dsn = line.split()
        yield process, int(pid), dsn
    finally:
        process.kill()
        process.communicate(timeout=10)


async def test_the_service_gets_a_role_that_owns_its_database_and_nothing_more(
    directory: Path, postgres_binaries: Binaries
) -> None:
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        await query(postgres.dsn(), "create table mine (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(postgres.dsn(), "select pg_read_file('/etc/hostname')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(postgres.dsn(), "copy mine from program 'true'")


async def test_nobody_else_can_reach_the_directory_or_the_server(directory: Path, postgres_binaries: Binaries) -> None:
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        assert await query(postgres.dsn(), "select current_setting('listen_addresses')") == ""
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (directory, *directory.iterdir())}
    assert set(modes.values()) == {"0o700", "0o600"}, modes


async def test_what_was_written_is_there_after_stop_and_start(directory: Path, postgres_binaries: Binaries) -> None:
    postgres = EmbeddedPostgres(directory, postgres_binaries)
    async with postgres:
        await query(postgres.dsn(), "create table kept as select 42 as answer")
    assert server_process(directory / "data") is None
    async with postgres:
        assert await query(postgres.dsn(), "select answer from kept") == 42


async def test_it_sorts_alike_on_every_machine(directory: Path, postgres_binaries: Binaries) -> None:
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        in_order = "select string_agg(t, '' order by t) from unnest(array['b', 'a', 'Z', 'é']) t"
        assert await query(postgres.dsn(), in_order) == "Zabé"


@pytest.mark.parametrize(
    "name", ["a b/pg", 'it\'s "quoted", and more', "ü/" + "long" * 40], ids=["space", "quotes", "long"]
)
async def test_the_directory_may_have_any_name(directory: Path, postgres_binaries: Binaries, name: str) -> None:
    postgres = EmbeddedPostgres(directory / name, postgres_binaries)
    async with postgres:
        assert await query(postgres.dsn(), "select 1") == 1
    async with postgres:
        assert await query(postgres.dsn(), "select 1") == 1


async def test_a_name_too_long_for_a_socket_leaves_nothing_in_tmp(directory: Path, postgres_binaries: Binaries) -> None:
    before = set(Path("/tmp").glob(f"colloquy-{os.geteuid()}-*"))
    async with EmbeddedPostgres(directory / ("long" * 40), postgres_binaries):
        (sockets,) = set(Path("/tmp").glob(f"colloquy-{os.geteuid()}-*")) - before
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


async def test_somebody_elses_directory_in_tmp_is_not_used_for_the_socket(
    directory: Path, postgres_binaries: Binaries
) -> None:
    before = set(Path("/tmp").glob(f"colloquy-{os.geteuid()}-*"))
    postgres = EmbeddedPostgres(directory / ("long" * 40), postgres_binaries)
    async with postgres:
        (sockets,) = set(Path("/tmp").glob(f"colloquy-{os.geteuid()}-*")) - before
    sockets.mkdir()
    sockets.chmod(0o755)
    try:
        with pytest.raises(DirectoryNotOurs):
            await postgres.start()
    finally:
        sockets.rmdir()


async def test_a_second_owner_is_refused_and_the_first_is_not_disturbed(
    directory: Path, postgres_binaries: Binaries
) -> None:
    async with EmbeddedPostgres(directory, postgres_binaries) as first:
        with pytest.raises(AlreadyRunning, match="stop it, or set DATA_DIR"):
            await EmbeddedPostgres(directory, postgres_binaries).start()
        assert await query(first.dsn(), "select 1") == 1


async def test_a_killed_owner_takes_its_server_along_and_the_next_finds_every_row(
    directory: Path, postgres_binaries: Binaries
) -> None:
    with owner(directory) as (process, _, dsn):
        await query(dsn, "create table kept as select 42 as answer")
        process.kill()
        process.wait(10)
        if sys.platform == "linux":
            await eventually(lambda: server_process(directory / "data") is None)
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        assert await query(postgres.dsn(), "select answer from kept") == 42


async def test_a_server_whose_owner_could_not_take_it_along_is_replaced(
    directory: Path, postgres_binaries: Binaries
) -> None:
    with owner(directory) as (process, orphan, dsn):
        await query(dsn, "create table kept as select 42 as answer")
        os.kill(orphan, signal.SIGSTOP)  # so it cannot obey when the kernel announces its owner's death
        process.kill()
        process.wait(10)
        assert server_process(directory / "data") == orphan
        os.kill(orphan, signal.SIGCONT)
        async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
            assert postgres.pid != orphan
            assert await query(postgres.dsn(), "select answer from kept") == 42


async def test_acknowledged_rows_survive_a_power_cut(durable_postgres: DurablePostgres) -> None:
    connection = await asyncpg.connect(durable_postgres.url)
    await connection.execute("create table ticks (n int)")
    for n in range(50):
        await connection.execute("insert into ticks values ($1)", n)
    await durable_postgres.kill()
    connection.terminate()
    await durable_postgres.start()

    assert await query(durable_postgres.url, "select count(*) from ticks") == 50


async def test_a_server_that_was_killed_is_started_again_while_somebody_keeps_it_running(
    directory: Path, postgres_binaries: Binaries
) -> None:
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        await query(postgres.dsn(), "create table kept as select 42 as answer")
        first = postgres.pid
        assert first is not None
        keeper = asyncio.create_task(postgres.keep_running())
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: server_process(directory / "data") not in (None, first))

        async def answers() -> bool:
            try:
                return await query(postgres.dsn(), "select answer from kept") == 42
            except (OSError, asyncpg.PostgresError):
                return False

        await eventually(answers)
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper
    assert server_process(directory / "data") is None


async def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(
    directory: Path, postgres_binaries: Binaries
) -> None:
    postgres = EmbeddedPostgres(directory, postgres_binaries)
    async with postgres:
        stale = (directory / "data" / "postmaster.pid").read_text().split("\n", 1)[1]
    (directory / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{stale}")

    async with postgres:
        assert await query(postgres.dsn(), "select 1") == 1


async def test_a_killed_server_that_nobody_has_waited_for_does_not_stop_the_start(
    directory: Path, postgres_binaries: Binaries
) -> None:
    with owner(directory) as (process, pid, _):
        os.kill(process.pid, signal.SIGSTOP)  # the parent cannot reap: the killed server stays a zombie
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: server_process(directory / "data") is None)
        (directory / "lock").unlink()  # the stopped owner still holds it
        async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
            assert await query(postgres.dsn(), "select 1") == 1


async def test_an_interrupted_first_start_leaves_nothing_half_made(
    directory: Path, postgres_binaries: Binaries
) -> None:
    (directory / "data.new" / "base").mkdir(parents=True)
    (directory / "data.new" / "PG_VERSION").write_text("18\n")

    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        assert await query(postgres.dsn(), "select 1") == 1
    assert not (directory / "data.new").exists()


async def test_a_cancelled_start_gives_the_directory_free(directory: Path, postgres_binaries: Binaries) -> None:
    postgres = EmbeddedPostgres(directory, postgres_binaries)
    start = asyncio.create_task(postgres.start())
    await eventually((directory / "data.new").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    async with EmbeddedPostgres(directory, postgres_binaries) as second:
        assert await query(second.dsn(), "select 1") == 1


async def test_data_of_another_major_version_is_left_alone_and_both_versions_named(
    directory: Path, postgres_binaries: Binaries
) -> None:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(OtherMajorVersion, match=rf"made by PostgreSQL 9, .* version {postgres_binaries.major}"):
        await EmbeddedPostgres(directory, postgres_binaries).start()


async def test_a_server_that_does_not_start_says_why(directory: Path, postgres_binaries: Binaries) -> None:
    postgres = EmbeddedPostgres(directory, postgres_binaries, {"shared_buffers": "much"})

    with pytest.raises(ServerDidNotStart, match='invalid value for parameter "shared_buffers"'):
        await postgres.start()


def test_it_is_started_in_the_main_thread_or_not_at_all(directory: Path, postgres_binaries: Binaries) -> None:
    refusals: list[BaseException] = []

    def start() -> None:
        try:
            asyncio.run(EmbeddedPostgres(directory, postgres_binaries).start())
        except RuntimeError as refusal:
            refusals.append(refusal)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(10)

    assert len(refusals) == 1
    assert not directory.exists()


async def test_keys_in_our_environment_are_not_given_to_the_server(
    directory: Path, postgres_binaries: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PGPORT", "1")
    async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
        assert await query(postgres.dsn(), "select current_setting('port')") == "5432"
        environment = Path(f"/proc/{postgres.pid}/environ")
        if environment.exists():
            assert b"sk-secret" not in environment.read_bytes()


def test_a_directory_without_programs_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NoUsablePostgres, match=str(tmp_path)):
        find_binaries(tmp_path)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can become somebody else")
class TestAsRoot:
    """PostgreSQL refuses root, so root starts it as somebody with fewer rights."""

    async def test_the_server_has_no_capabilities(self, directory: Path, postgres_binaries: Binaries) -> None:
        async with EmbeddedPostgres(directory, postgres_binaries) as postgres:
            status = Path(f"/proc/{postgres.pid}/status").read_text()
        effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
        assert int(effective.split()[1], 16) & ~(1 << 1) == 0, effective  # 1 is the right to reach our directory

    async def test_without_user_namespaces_another_user_serves_and_still_dies_with_its_owner(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        refusing = tmp_path / "unshare"
        refusing.write_text("#!/bin/sh\nexit 1\n")
        refusing.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with owner(directory) as (process, pid, dsn):
            await query(dsn, "create table kept as select 42 as answer")
            assert Path(f"/proc/{pid}").stat().st_uid != 0
            process.kill()
            process.wait(10)
            await eventually(lambda: server_process(directory / "data") is None)
        monkeypatch.undo()
        # And the data moves back to us when user namespaces are there again.
        async with EmbeddedPostgres(directory, find_binaries()) as postgres:
            assert await query(postgres.dsn(), "select answer from kept") == 42

    def test_an_ordinary_user_needs_nothing_of_this(self, directory: Path) -> None:
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        python = _python_for(nobody)
        directory.parent.chmod(0o755)
        directory.mkdir()
        shutil.chown(directory, 65534, 65534)
        script = [*nobody, *python, "-m", "tests.owner", str(directory)]
        answer = subprocess.run(
            script,
            cwd=ROOT,
            input="",
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert answer.returncode == 0, answer.stderr
        assert "postgresql://colloquy@" in answer.stdout


def _python_for(user: list[str]) -> list[str]:
    """A Python of our version that this user may run and that may read the checkout; skips if there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        probe = [*user, python, "-c", "import asyncpg, db.embedded, tests"]
        try:
            subprocess.run(probe, cwd="/", env=environment, capture_output=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return [python]
    pytest.skip("the checkout or its Python is not readable for other users")
