"""The PostgreSQL that `make run` starts: private to one directory, owned by one process, durable.

    <directory>/data          the cluster
    <directory>/socket        where it listens; there is no network port
    <directory>/postgres.log
    <directory>/lock          held (flock) by the owner for as long as it lives

Whoever holds the lock owns the server, and the server does not outlive its owner: on Linux the kernel tells it to
shut down when the owner dies, however it dies. Elsewhere the next owner shuts such an orphan down first.
"""

import asyncio
import ctypes
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import quote

import asyncpg

from db.binaries import Binaries
from db.orphans import server_process, wait_until_gone
from db.refusals import AlreadyRunning, DirectoryNotOurs, OtherMajorVersion, ServerDidNotStart

ROLE = "colloquy"
DATABASE = "colloquy"

DURABLE: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "shared_buffers": "128MB",
        "max_connections": "60",
        "max_wal_size": "512MB",
        "jit": "off",  # our queries are short; compiling them costs more than it saves
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
)

_PORT = "5432"  # only a part of the socket's name
_LONGEST_SOCKET_PATH = 103  # bytes, on every system that we know
_ANSWER_SECONDS = 120.0  # a start after a crash replays the log first
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.005
_WATCH_SECONDS = 0.1
_LOG_BYTES = 5_000_000
_PASSED_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_PR_SET_PDEATHSIG = 1


log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """A PostgreSQL server in `directory` that runs from start() to stop(), or to the end of this process.

    `settings` are PostgreSQL's own parameters.
    """

    def __init__(self, directory: Path, binaries: Binaries, settings: Mapping[str, str] = DURABLE) -> None:
        self._directory = directory.absolute()
        self._binaries = binaries
        self._settings = settings
        self._data = self._directory / "data"
        self._log = self._directory / "postgres.log"
        self._sockets = _socket_directory(self._directory)
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process, while it is started."""
        return self._process.pid if self._process else None

    def dsn(self, role: str = ROLE, database: str = DATABASE) -> str:
        """An address for asyncpg. The default role owns the default database and nothing else."""
        return f"postgresql://{role}@/{database}?host={quote(str(self._sockets), safe='')}&port={_PORT}"

    async def start(self) -> None:
        """Return when the server answers and the role and its database exist.

        Must be called in the main thread: the kernel counts the death of the thread that started the server as the
        death of its owner. Raises AlreadyRunning, DirectoryNotOurs, OtherMajorVersion, ServerDidNotStart.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("EmbeddedPostgres.start() must be called in the main thread")
        try:
            self._take_directory()
            await self._make_cluster()
            await self._stop_orphan()
            _make_private(self._sockets)
            await self._launch_patiently()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server, waiting for its last checkpoint, and give the directory free. Never raises if not started."""
        try:
            if self._process:
                await _shut_down(self._process)
                _leave_tmp_clean(self._sockets, self._directory)
        finally:
            self._process = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    async def keep_running(self) -> None:
        """Start the server again whenever it ends by itself (killed for memory, say), until cancelled.

        Call it after start(), in the main thread too. Raises ServerDidNotStart when it cannot be started any more.
        """
        while self._process:
            if self._process.poll() is None:
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            log.error("PostgreSQL ended by itself (exit code %s); starting it again", self._process.returncode)
            await self._stop_orphan()
            await self._launch_patiently()

    # --- the directory --------------------------------------------------------------------------------------------

    def _take_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"Another Colloquy is using {self._directory}: stop it, or set DATA_DIR.") from None
        except PermissionError as error:
            raise DirectoryNotOurs(f"{self._directory} belongs to another user ({error.strerror}).") from error

    async def _make_cluster(self) -> None:
        if not self._data.exists():
            await self._initdb()
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != str(self._binaries.major):
            raise OtherMajorVersion(self._data, made_by, self._binaries.major)
        _give(self._data, self._binaries.identity.uid, self._binaries.identity.gid)

    async def _initdb(self) -> None:
        """All or nothing: the cluster gets its name when it is complete."""
        unfinished = self._directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        process = self._spawn(
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth-local=trust",  # the socket's directory is the lock on this door
            "--auth-host=reject",
            "--encoding=UTF8",
            # The same order of texts on every machine, whatever its C library.
            *(builtin if self._binaries.major >= 17 else ["--locale=C.UTF-8"]),
        )
        try:
            code = await _exit_code(process, _ANSWER_SECONDS)
        finally:
            await _shut_down(process)  # if we were cancelled: nobody else may find it still writing there
        if code != 0:
            raise ServerDidNotStart(f"PostgreSQL could not make its data directory:\n{_tail(self._log)}")
        unfinished.rename(self._data)

    async def _stop_orphan(self) -> None:
        """Make sure that nothing but us serves this data.

        A server whose owner was killed is stopped and not adopted: it would not die with us. A dead server's files
        are removed because their number may by now be another process's.
        """
        if orphan := server_process(self._data):
            os.kill(orphan, signal.SIGINT)
            if not await wait_until_gone(self._data, _STOP_SECONDS):
                raise AlreadyRunning(f"Process {orphan} serves {self._data} and does not stop.")
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    # --- the server -----------------------------------------------------------------------------------------------

    async def _launch_patiently(self) -> None:
        """Start, allowing the children of a server that was just killed to let go of its shared memory."""
        for pause in (0.1, 0.5):
            try:
                await self._launch()
            except ServerDidNotStart:
                await asyncio.sleep(pause)
            else:
                return
        await self._launch()

    async def _launch(self) -> None:
        for name in (f".s.PGSQL.{_PORT}", f".s.PGSQL.{_PORT}.lock"):
            (self._sockets / name).unlink(missing_ok=True)
        fixed = {"listen_addresses": "", "unix_socket_permissions": "0700", "logging_collector": "off"}
        parameters = [word for pair in {**self._settings, **fixed}.items() for word in ("-c", "=".join(pair))]
        self._process = self._spawn(
            "postgres", "-D", str(self._data), "-k", str(self._sockets), "-p", _PORT, *parameters
        )
        connection = await self._first_connection(self._process)
        try:
            await _make_role_and_database(connection)
        finally:
            await connection.close()

    async def _first_connection(self, process: subprocess.Popen[bytes]) -> asyncpg.Connection:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while process.poll() is None:
                    try:
                        return await asyncpg.connect(self.dsn("postgres", "postgres"), timeout=2)
                    except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                        await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            await _shut_down(process)
        raise ServerDidNotStart(f"PostgreSQL did not start. The end of {self._log}:\n{_tail(self._log)}")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program that ends when we do, writing to the log.

        In a session of its own, because Ctrl-C in the terminal must reach us and not the server. Of our environment
        it gets a few harmless names: it needs no keys, and PGPORT and its kin would change what it does.
        """
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.rename(self._log.with_suffix(".log.1"))
        environment = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(
                self._binaries.command(program, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=environment | {"LC_ALL": "C"},
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  nothing but two system calls runs there
            )
        finally:
            os.close(log)


async def _make_role_and_database(connection: asyncpg.Connection) -> None:
    """The service's role cannot read files, load code or see other databases, whatever it is talked into."""
    if not await connection.fetchval("select true from pg_roles where rolname = 'colloquy'"):
        await connection.execute("create role colloquy login nosuperuser nocreatedb nocreaterole")
    if not await connection.fetchval("select true from pg_database where datname = 'colloquy'"):
        await connection.execute("create database colloquy owner colloquy")


def _die_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes the program, where the kernel can announce a parent's death."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: the child must not load anything
    parent = os.getpid()

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return before_exec


async def _shut_down(process: subprocess.Popen[bytes]) -> None:
    """Politely, then at once without a checkpoint (the next start replays the log), then by force."""
    for request in (signal.SIGINT, signal.SIGQUIT):
        if process.poll() is None:
            process.send_signal(request)
        if await _exit_code(process, _STOP_SECONDS) is not None:
            return
    process.kill()
    process.wait(_STOP_SECONDS)


async def _exit_code(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """How it ended, or None if it is still running after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while process.poll() is None:
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        pass
    return process.returncode


def _socket_directory(directory: Path) -> Path:
    """`directory`/socket, or one in /tmp where that name is too long for a socket's address."""
    sockets = directory / "socket"
    path = os.fsencode(sockets / f".s.PGSQL.{_PORT}")
    # A comma would be read as a list of directories.
    if len(path) <= _LONGEST_SOCKET_PATH and not any(sign in path for sign in (b",", b'"')):
        return sockets
    name = hashlib.sha256(path).hexdigest()[:16]
    return Path("/tmp") / f"colloquy-{os.geteuid()}-{name}"  # noqa: S108  used only if it is ours: _make_private


def _make_private(sockets: Path) -> None:
    """Anybody may have put something under that name in /tmp. Raises DirectoryNotOurs."""
    sockets.mkdir(mode=0o700, exist_ok=True)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise DirectoryNotOurs(f"{sockets} exists and is not a private directory of ours: remove it.")


def _leave_tmp_clean(sockets: Path, directory: Path) -> None:
    if sockets.parent != directory:
        with suppress(OSError):
            sockets.rmdir()


def _give(data: Path, uid: int, gid: int) -> None:
    """Let the identity that will run the server own the cluster; it may have been another one last time."""
    if data.stat().st_uid == uid:
        return
    for path in (data, *data.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
