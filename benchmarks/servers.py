"""The servers that are measured: Colloquy with a durable database of its own, and the bare relay."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks import usage
from benchmarks.processes import running
from db.binaries import find_binaries
from db.embedded import EmbeddedPostgres

_PLENTY = {
    "LIMITS__RUNS_PER_USER": "100000",
    "LIMITS__CONNECTIONS_PER_USER": "100000",
    "LIMITS__FRAMES_PER_MINUTE": "100000000",
}
_CREATED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Server:
    """Something that speaks the protocol of one socket per session."""

    name: str
    address: str
    pid: int
    home: Path
    has_database: bool

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.address.rpartition(":")[2])

    def database_pids(self) -> list[int]:
        """The processes of its database, which are its only children."""
        return usage.descendants(self.pid) if self.has_database else []

    def database_url(self) -> str:
        """Where its database listens."""
        return EmbeddedPostgres(_data(self.home) / "postgres", find_binaries()).dsn()

    async def new_sessions(self, count: int) -> list[str]:
        """The ids of `count` empty sessions. The bare relay has none, so any word will do there."""
        if not self.has_database:
            return [str(number) for number in range(count)]
        turn = asyncio.Semaphore(_CREATED_AT_ONCE)
        async with httpx2.AsyncClient(base_url=self.address, timeout=30) as http:

            async def create() -> str:
                async with turn:
                    answer = await http.post("/api/sessions", json={})
                    return answer.raise_for_status().json()["id"]

            return await asyncio.gather(*(create() for _ in range(count)))


@contextmanager
def scratch() -> Generator[Path, None, None]:
    """A directory for the time of one benchmark, on a disk: /tmp may be memory, where nothing is durable."""
    with tempfile.TemporaryDirectory(prefix="colloquy-bench-", dir="/var/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def upstream(home: Path) -> AsyncGenerator[tuple[str, int], None]:
    """The address of a model server, and its process."""
    async with running([sys.executable, "-m", "benchmarks.upstream"], home=home) as process:
        yield process.said, process.pid


@asynccontextmanager
async def service(
    home: Path, upstream: str, *, name: str = "service", settings: dict[str, str] | None = None
) -> AsyncGenerator[Server, None]:
    """Colloquy as `make run` starts it, with its database below `home`; the limits are out of the way."""
    home = home / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    environment = {
        "PORT": "0",
        "DATA_DIR": str(_data(home)),
        "DEFAULT_PROVIDER": "openai",
        "OPENAI_BASE_URL": upstream,
        "OPENAI_API_KEY": "none",
        "OPENAI_DEFAULT_MODEL": "0x1",
        "LOG_LEVEL": "warning",
        "FIRST_RUN_CONTENT": "false",
        "TITLES__ENABLED": "false",
    }
    command = [sys.executable, "-m", "api"]
    async with running(command, home=home, settings=environment | _PLENTY | (settings or {})) as process:
        address = next(word for word in process.said.split() if word.startswith("http://"))
        yield Server(name, address, process.pid, home, has_database=True)


@asynccontextmanager
async def bare_relay(home: Path, upstream: str, *, sdk_default: bool = False) -> AsyncGenerator[Server, None]:
    """The bare relay; `sdk_default`, which is then its name, reads typed chunks over the client's default transport."""
    name = "SDK default" if sdk_default else "bare relay"
    command = [sys.executable, "-m", "benchmarks.bare_relay", *(["--sdk-default"] if sdk_default else []), upstream]
    home = home / name.replace(" ", "-")
    home.mkdir(exist_ok=True)
    async with running(command, home=home) as process:
        yield Server(name, process.said, process.pid, home, has_database=False)


def _data(home: Path) -> Path:
    return home / "data"
