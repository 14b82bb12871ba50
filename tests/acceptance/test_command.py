"""What `python -m api` promises to whoever types it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.orphans import server_process
from tests.postgres import memory_directory
from tests.waiting import eventually

_READY = "Colloquy is ready: http://127.0.0.1:"

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """One for all tests here: each start after the first one is a warm one."""
    with tempfile.TemporaryDirectory(prefix="colloquy-", dir=memory_directory()) as name:
        yield Path(name)


class Command:
    """A running `python -m api`."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        environment = {**os.environ, "DATA_DIR": str(data_dir), "PORT": "0", "DEFAULT_PROVIDER": "demo", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    async def port(self) -> int:
        """The port, once it is ready; the log may have said something before."""
        said: list[str] = []
        while not (said and said[-1].startswith(_READY)):
            line = await asyncio.to_thread(self._read_line)
            assert line, f"it ended before it was ready:\n{''.join(said)}"
            said.append(line)
        return int(said[-1].split(":")[3].split()[0])

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    async def rest(self) -> str:
        """What it still says until it ends, after which its exit code is known."""
        said, _ = await asyncio.to_thread(self.process.communicate, timeout=30)
        return said


@contextmanager
def command(data_dir: Path, **settings: str) -> Generator[Command, None, None]:
    running = Command(data_dir, **settings)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=10)


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_ends_everything_with_exit_code_0(data_dir: Path, number: signal.Signals) -> None:
    with command(data_dir) as running:
        port = await running.port()
        assert is_open(port)
        running.process.send_signal(number)
        said = await running.rest()

    assert running.process.returncode == 0, said
    assert "Traceback" not in said
    assert not is_open(port)
    assert server_process(data_dir / "postgres" / "data") is None


async def test_a_signal_before_it_is_ready_ends_everything_too(data_dir: Path) -> None:
    with command(data_dir) as running:
        # A command that ends instead shall fail this test at once, with what it said.
        begun = lambda: server_process(data_dir / "postgres" / "data") or running.process.poll() is not None  # noqa: E731
        await eventually(begun, seconds=30)
        running.process.send_signal(signal.SIGINT)
        said = await running.rest()

    assert running.process.returncode == 0, said
    assert "Traceback" not in said
    assert server_process(data_dir / "postgres" / "data") is None


async def test_after_kill_9_nothing_is_left_running_and_the_next_start_works(data_dir: Path) -> None:
    with command(data_dir) as running:
        await running.port()
        running.process.kill()
        await running.rest()
    if sys.platform == "linux":
        await eventually(lambda: server_process(data_dir / "postgres" / "data") is None)

    with command(data_dir) as running:
        assert is_open(await running.port())


async def test_a_killed_database_comes_back_without_a_restart_of_the_service(data_dir: Path) -> None:
    data = data_dir / "postgres" / "data"
    with command(data_dir) as running:
        port = await running.port()
        first = server_process(data)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: server_process(data) not in (None, first))
        assert is_open(port)
        running.process.terminate()
        said = await running.rest()

    assert running.process.returncode == 0, said
    assert server_process(data) is None


async def test_a_taken_port_is_named(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with command(data_dir, PORT=str(port)) as running:
            said = await running.rest()

    assert running.process.returncode == 1
    assert said.splitlines()[-1].startswith(f"Port {port} on 127.0.0.1 is taken")


async def test_a_second_service_on_the_same_data_is_refused(data_dir: Path) -> None:
    with command(data_dir) as first:
        port = await first.port()
        with command(data_dir) as second:
            said = await second.rest()

        assert second.process.returncode == 1
        assert "Another Colloquy is using" in said
        assert is_open(port)


async def test_a_setting_that_cannot_be_used_is_explained_without_a_traceback(data_dir: Path) -> None:
    with command(data_dir, HOST="0.0.0.0", LIMITS__FRAME_BITES="1") as running:
        said = await running.rest()

    assert running.process.returncode == 2
    assert "Did you mean LIMITS__FRAME_BYTES?" in said
    assert "Traceback" not in said


async def test_a_file_of_tool_servers_that_cannot_be_used_is_explained_without_a_traceback(
    data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tools.json"
    file.write_text('{"mcpServers": {"mine": {"comand": "x"}}}')
    with command(data_dir, MCP_CONFIG=str(file)) as running:
        said = await running.rest()

    assert running.process.returncode == 2
    assert f"{file}: server 'mine': there is no key 'comand'. Did you mean 'command'?" in said
    assert "Traceback" not in said


async def test_another_database_is_migrated_and_served_without_starting_one(
    empty_database_url: str, data_dir: Path, tmp_path: Path
) -> None:
    with command(tmp_path, DATABASE_URL=empty_database_url) as running:
        assert is_open(await running.port())
        running.process.terminate()
        await running.rest()

    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


def test_migrate_brings_a_database_up_to_date_and_says_what_it_did(empty_database_url: str) -> None:
    def migrate(*words: str) -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "api", "migrate", *words],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": empty_database_url},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return answer.stdout

    assert migrate("--status").startswith("would apply 0001_")
    assert migrate().startswith("applied 0001_")
    assert migrate("--status") == "The database is up to date.\n"
    assert migrate() == "The database is up to date.\n"
