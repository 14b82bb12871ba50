"""Whether the service can do its work, part by part."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from db.errors import DatabaseError
from db.stores.schema import SchemaStore
from services.errors import ShuttingDown, Unavailable
from services.mcp.pool import McpPool
from services.mcp.types import ServerStatus
from services.providers.registry import Providers
from services.runs.engine import RunEngine
from services.scripts.sandbox import Sandbox

_PATIENCE = 2.0
"""Whoever asks whether we are healthy has a short timeout of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the service: whether it works, what it says, and how long it took to say so."""

    name: str
    works: bool
    detail: str
    ms: int
    is_essential: bool = True
    """Whether the service as a whole fails with it."""


class HealthService:
    """Asks the parts how they are."""

    def __init__(
        self,
        schema: SchemaStore,
        engine: RunEngine,
        providers: Providers,
        tool_servers: McpPool,
        sandbox: Sandbox,
        *,
        newest_migration: int,
    ) -> None:
        self._schema = schema
        self._engine = engine
        self._providers = providers
        self._tool_servers = tool_servers
        self._sandbox = sandbox
        self._newest_migration = newest_migration

    async def ready(self) -> None:
        """Return if new work can be taken; raises `ShuttingDown` or `Unavailable`."""
        if self._engine.is_draining:
            raise ShuttingDown
        for part in (await self._database(), await self._migrations()):
            if not part.works:
                raise Unavailable(f"{part.name}: {part.detail}", retry_after=2)

    async def parts(self) -> list[Part]:
        """How each part is; none of them takes longer than two seconds to tell."""
        asked = await asyncio.gather(self._database(), self._migrations())
        tool_servers = map(_tool_server, self._tool_servers.servers())
        return [*asked, self._runs(), self._model_servers(), self._scripts(), *tool_servers]

    async def _database(self) -> Part:
        async def ask() -> str:
            await self._schema.version()
            return "answers"

        return await _asked("database", ask)

    async def _migrations(self) -> Part:
        async def ask() -> str:
            version = await self._schema.version()
            if version < self._newest_migration:
                raise DatabaseError(f"the schema is at {version}, this version needs {self._newest_migration}")
            # A newer version may be on its way in: what it adds to the schema is no hindrance to this one.
            return f"at {version}" if version == self._newest_migration else f"at {version}, newer than this version"

        return await _asked("migrations", ask)

    def _runs(self) -> Part:
        draining = self._engine.is_draining
        running = f"{len(self._engine.performing)} running"
        return Part("runs", not draining, f"{running}, taking no more" if draining else running, 0)

    def _model_servers(self) -> Part:
        return Part("providers", True, f"{', '.join(self._providers.names)}; default: {self._providers.default}", 0)

    def _scripts(self) -> Part:
        """Without scripts, modules lose their words, and the service goes on."""
        level = self._sandbox.hardening_level
        detail = level.meaning if level else "their processes cannot be started: see the log of the start"
        return Part("scripts", level is not None, detail, 0, is_essential=False)


def _tool_server(status: ServerStatus) -> Part:
    """A tool server that nobody has needed yet is in order; one that fails costs its tools, not the service."""
    match status.state:
        case "idle":
            detail = "not started: nobody has needed it yet"
        case "starting":
            detail = "starting"
        case "ready":
            detail = f"{len(status.tools or ())} tools"
        case "resting" | "failing":
            detail = status.last_error or "ended"
    return Part(f"tools/{status.name}", status.state != "failing", detail, 0, is_essential=False)


async def _asked(name: str, ask: Callable[[], Awaitable[str]]) -> Part:
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE):
            works, detail = True, await ask()
    except TimeoutError:
        works, detail = False, f"no answer within {_PATIENCE:g} s"
    except DatabaseError as error:
        works, detail = False, str(error)
    return Part(name, works, detail, round((time.monotonic() - began) * 1000))
