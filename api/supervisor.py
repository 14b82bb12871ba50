"""One process from start to stop: sockets, PostgreSQL, schema, server; and the same in reverse."""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from api.http_guard import guarded_http
from api.listening import CannotListen, bind
from api.settings import Settings
from db.binaries import find_binaries
from db.embedded import EmbeddedPostgres
from db.migrate import Migration, migrate, missing
from db.refusals import AlreadyRunning, DatabaseNotReady
from services.large_work import settle
from websocket.transport import guarded

if TYPE_CHECKING:
    from fastapi import FastAPI  # the slowest import of all, and `migrate` needs none of it

CreateApp = Callable[[Settings, str], "FastAPI"]
Announce = Callable[[Sequence[str]], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLOSING_SECONDS = 5  # for sockets to say goodbye, after the replies have had their time

log = logging.getLogger(__name__)


async def serve(settings: Settings, create_app: CreateApp, announce: Announce) -> None:
    """Serve until a signal asks to stop, then end everything that was started.

    Raises CannotListen or DatabaseNotReady before anything is served.
    """
    with _stoppable() as stop, contextlib.ExitStack() as sockets:
        bound = bind(settings.host, settings.port)
        for one in bound:
            sockets.enter_context(one)
        settings = settings.model_copy(update={"port": bound[0].getsockname()[1]})
        async with database(settings) as at:
            await migrate(at.url, patience=settings.timeouts.database)
            server = _Server(settings, create_app(settings, at.url), announce)
            stop.server = server
            await _serve_while(at.keep_running, server, bound)


async def migrate_only(settings: Settings) -> list[Migration]:
    """Bring the database to this version's schema; the steps that were missing."""
    async with database(settings) as at:
        return await migrate(at.url, patience=settings.timeouts.database)


async def migrations_missing(settings: Settings) -> list[Migration]:
    """What `migrate_only` would do."""
    async with database(settings) as at:
        return await missing(at.url, patience=settings.timeouts.database)


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and a coroutine function that keeps it running for as long as it is awaited."""

    url: str
    keep_running: Callable[[], Coroutine[None, None, None]]


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncGenerator[Database, None]:
    """The operator's database, or one of our own that runs as long as this context."""
    if settings.database_address:
        yield Database(settings.database_address, keep_running=_somebody_else_does)
        return
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with EmbeddedPostgres(settings.data_dir / "postgres", find_binaries(settings.pg_bin)) as postgres:
        yield Database(postgres.dsn(), postgres.keep_running)


@contextlib.asynccontextmanager
async def reached(settings: Settings) -> AsyncGenerator[str, None]:
    """The database: that of a running service, or one that is started for as long as this takes."""
    try:
        async with database(settings) as at:
            yield at.url
    except AlreadyRunning:
        yield EmbeddedPostgres(settings.data_dir / "postgres", find_binaries(settings.pg_bin)).dsn()


async def _somebody_else_does() -> None:
    return


class _Stop:
    """What a signal does: before there is a server it cancels the start, later it asks the server to end.

    Whoever asks twice does not want to wait for what is still running.
    """

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.server: _Server | None = None
        self._task = task

    def __call__(self) -> None:
        if self.server is None:
            self._task.cancel()
        elif self.server.should_exit:
            self.server.hurry()
        else:
            self.server.should_exit = True


@contextlib.contextmanager
def _stoppable() -> Generator[_Stop, None, None]:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    stop = _Stop(task)
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _serve_while(
    keep_running: Callable[[], Coroutine[None, None, None]], server: uvicorn.Server, sockets: list[socket.socket]
) -> None:
    """Serve until asked to stop, or until the database is lost for good, which is then raised."""

    async def keep() -> None:
        try:
            await keep_running()
        except DatabaseNotReady:
            server.should_exit = True
            raise

    keeper = asyncio.create_task(keep(), name="keep PostgreSQL running")
    try:
        await _listen(server, sockets)
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def _listen(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    try:
        await server.serve(sockets)
    except OSError as error:  # somebody else listened on the port while PostgreSQL was starting
        raise CannotListen(f"Cannot listen: {error.strerror}.") from error


class _Server(uvicorn.Server):
    """uvicorn with our sockets' manners, that says when it is up and lets replies finish before it closes sockets.

    The application may offer `app.state.banner`, lines to print when it is up; `app.state.drain`, a coroutine function
    that returns when the running replies have ended; and `app.state.hurry`, a function that makes it wait no longer.
    """

    def __init__(self, settings: Settings, app: "FastAPI", announce: Announce) -> None:
        super().__init__(_config(settings, app))
        self._app = app
        self._announce = announce
        self._drain_seconds = settings.timeouts.drain
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._address = f"http://{host}:{settings.port}"

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are handled above: uvicorn would send itself the signal again at the end, over our clean-up."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        settle()
        banner: Sequence[str] = getattr(self._app.state, "banner", ())
        self._announce([f"Colloquy is ready: {self._address} (Ctrl-C stops it)", *banner])

    def hurry(self) -> None:
        """End at once, but in good order: what is running is interrupted, and what is stored stays whole."""
        self.force_exit = True
        hurry: Callable[[], None] | None = getattr(self._app.state, "hurry", None)
        if hurry is not None:
            hurry()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Until the replies have ended there is an answer for everybody: what they still say, and that nothing new is
        # begun. A closed port would say neither.
        began = time.monotonic()
        await self._drain()
        left = self._drain_seconds - (time.monotonic() - began)
        self.config.timeout_graceful_shutdown = max(_CLOSING_SECONDS, math.ceil(left))  # for uploads, say
        await super().shutdown(sockets)
        if self.force_exit:
            await self._end_requests()
            await self.lifespan.shutdown()  # which uvicorn leaves out in a hurry, and with it all that closes in order

    async def _end_requests(self) -> None:
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING_SECONDS)

    async def _drain(self) -> None:
        drain: Callable[[], Awaitable[None]] | None = getattr(self._app.state, "drain", None)
        if drain is None:
            return
        try:
            async with asyncio.timeout(self._drain_seconds):
                await drain()
        except TimeoutError:
            log.warning("replies were still running after %g s; they are closed as interrupted", self._drain_seconds)


def _config(settings: Settings, app: "FastAPI") -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        # Never more: at `info` uvicorn writes the query string of each socket, where some clients put their token.
        log_level=max(logging.WARNING, logging.getLevelNamesMapping()[settings.log_level.upper()]),
        access_log=False,
        http=guarded_http(settings),
        ws=guarded(settings.timeouts.stall),
        ws_max_size=settings.limits.frame_bytes,
        ws_ping_interval=settings.timeouts.ping_interval,
        ws_ping_timeout=settings.timeouts.ping_timeout,
        ws_per_message_deflate=False,  # costs more CPU per frame than it saves on small ones, and doubles idle memory
        timeout_graceful_shutdown=_CLOSING_SECONDS,
        proxy_headers=False,  # nobody stands before us in local mode, so nobody may say who the client is
        server_header=False,
    )
