"""The whole service in the test's own loop, behind a real port."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from pydantic import SecretStr

from api.http_guard import guarded_http
from api.listening import bind
from api.main import create_app
from api.settings import Settings
from api.tracing import Tracing
from tests.waiting import eventually
from websocket.transport import guarded

_PLAIN = {
    "default_provider": "demo",
    "first_run_content": False,
    "titles": {"enabled": False},
    "limits": {"requests_per_minute": 0},  # tests ask faster than anybody
    "secret_key": "Nq0zJ8vYw3bTfLr6XgK1mUe9HsPd4CaI7oBxV2nS5yQ",
}
_QUICK = {
    "auth_mode": "accounts",
    "passwords": {"memory_kib": 8, "waiting": 1000},
    "guessing": {
        "per_account_and_address": 10_000,
        "per_account": 10_000,
        "per_address": 10_000,
        "registrations_per_address": 10_000,
    },
}


def local_settings(**changes: Any) -> Settings:
    """Settings with those changes, whatever the developer's .env and environment say. Groups are dictionaries."""
    return Settings(_env_file=None, **(_PLAIN | changes))  # pyright: ignore[reportCallIssue]


def accounts_settings(**changes: Any) -> Settings:
    """The same with accounts, and passwords that cost next to nothing."""
    return local_settings(**(_QUICK | changes))


@asynccontextmanager
async def running_service(
    settings: Settings, database_url: str, tracing: Tracing | None = None
) -> AsyncGenerator[str, None]:
    """The base URL of a service on that database; on leaving it has been stopped as a signal would."""
    with contextlib.ExitStack() as sockets:
        bound = [sockets.enter_context(one) for one in bind("127.0.0.1", 0)]
        port: int = bound[0].getsockname()[1]
        # Named as the operator's, so that nobody believes to be alone on it.
        settings = settings.model_copy(update={"port": port, "database_url": SecretStr(database_url)})
        app = create_app(settings, database_url, tracing)
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                http=guarded_http(settings),
                ws=guarded(settings.timeouts.stall),
                ws_max_size=settings.limits.frame_bytes,
                ws_ping_interval=settings.timeouts.ping_interval,
                ws_ping_timeout=settings.timeouts.ping_timeout,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=2,
            )
        )
        task = asyncio.create_task(server.serve(bound))
        try:
            await eventually(lambda: server.started or task.done(), 15)
            if task.done():
                task.result()
                raise AssertionError("the service did not start: see its log")
            yield f"http://127.0.0.1:{port}"
        finally:
            drain = getattr(app.state, "drain", None)
            if drain is not None:
                await drain()
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals stay pytest's."""
        yield
