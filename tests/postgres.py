"""PostgreSQL servers for tests: the same launcher and the same programs that the service uses."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from db.binaries import Binaries
from db.embedded import DURABLE, EmbeddedPostgres
from db.migrate import migrate

FAST: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_connections": "100",
    "timezone": "UTC",
}
"""Nothing survives a crash, and nothing waits for a disk."""


class TestServer:
    """One server for a whole test session; each test gets a database of its own from it."""

    __test__ = False  # not a class of tests

    def __init__(self, server: EmbeddedPostgres, admin: asyncpg.Connection) -> None:
        self._server = server
        self._admin = admin
        self._databases = 0

    async def make_template(self) -> str:
        """Migrate once; every further database is a copy of the files. Returns the template's name."""
        await self._admin.execute("create database template_colloquy owner colloquy")
        await migrate(self._server.dsn(database="template_colloquy"))
        return "template_colloquy"

    @asynccontextmanager
    async def database(self, template: str) -> AsyncGenerator[str, None]:
        """The URL of a fresh database, dropped afterwards whoever is still connected."""
        self._databases += 1
        name = f"test_{self._databases}"
        await self._admin.execute(f"create database {name} owner colloquy template {template} strategy file_copy")
        try:
            yield self._server.dsn(database=name)
        finally:
            await self._admin.execute(f"drop database {name} with (force)")


class DurablePostgres:
    """A migrated server with the settings of production, to be stopped, started and killed by a test."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """The same before and after a restart."""
        return self._server.dsn()

    @property
    def superuser_url(self) -> str:
        """For what the service itself may not do, such as ending other people's connections."""
        return self._server.dsn("postgres", "postgres")

    async def start(self) -> None:
        """Return when it answers again."""
        await self._server.start()

    async def stop(self) -> None:
        """A clean shutdown; clients see their connections end."""
        await self._server.stop()

    async def restart(self) -> None:
        """Stop and start."""
        await self.stop()
        await self.start()

    async def fall(self) -> None:
        """An immediate shutdown: no goodbye, no checkpoint; the next start has to recover."""
        pid = self._server.pid
        assert pid is not None, "the server is not running"
        os.kill(pid, signal.SIGQUIT)
        await self._server.stop()

    async def kill_backend(self) -> None:
        """kill -9 for one process that serves the service: the server ends all the others too, and recovers."""
        admin = await asyncpg.connect(self.superuser_url)
        try:
            pid = await admin.fetchval("select pid from pg_stat_activity where datname = 'colloquy' limit 1")
        finally:
            await admin.close()
        os.kill(pid, signal.SIGKILL)

    async def kill(self) -> None:
        """kill -9 for the server and all its children, as a power cut would."""
        pid = self._server.pid
        assert pid is not None, "the server is not running"
        for process in (pid, *children_of(pid)):
            os.kill(process, signal.SIGKILL)
        await self._server.stop()

    async def end_connections(self) -> None:
        """Break every connection to the service's database; the server stays up."""
        admin = await asyncpg.connect(self.superuser_url)
        try:
            await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'colloquy'")
        finally:
            await admin.close()


@asynccontextmanager
async def fast_server(binaries: Binaries) -> AsyncGenerator[TestServer, None]:
    """A server in memory where the machine allows it, without any database of ours yet."""
    directory = tempfile.mkdtemp(prefix="colloquy-", dir=memory_directory())
    try:
        async with EmbeddedPostgres(Path(directory), binaries, FAST) as server:
            admin = await asyncpg.connect(server.dsn("postgres", "postgres"))
            try:
                yield TestServer(server, admin)
            finally:
                await admin.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def durable_server(binaries: Binaries) -> AsyncGenerator[DurablePostgres, None]:
    """A server on disk of its own, migrated, running."""
    directory = tempfile.mkdtemp(prefix="colloquy-")
    try:
        async with EmbeddedPostgres(Path(directory), binaries, DURABLE) as server:
            await migrate(server.dsn())
            yield DurablePostgres(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def memory_directory() -> Path | None:
    """Where files cost nothing, if the machine has such a place."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None


def children_of(pid: int) -> list[int]:
    """The processes that `pid` started, by the kernel's account."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
