"""Tool servers in a directory of their own, and the certainty that none of them outlives its test."""

import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.ids import SessionId, UserId, new_id
from services.mcp.config import McpServer, Program
from services.mcp.pool import McpPool
from services.mcp.types import McpLimits, ToolOutcome
from tests.waiting import eventually

HOSTILE = Path(__file__).parents[2] / "fakes" / "hostile_tools.py"


class Caller:
    """Somebody with a session who uses a pool."""

    def __init__(self, pool: McpPool) -> None:
        self.pool = pool
        self.owner_id, self.session_id = UserId(new_id()), SessionId(new_id())

    def somebody_else(self) -> "Caller":
        """Another user of the same pool."""
        return Caller(self.pool)

    async def call(self, tool: str, server: str = "hostile", **arguments: Any) -> str:
        """The text of a tool's answer, which must not be an error."""
        outcome = await self.ask(tool, server, **arguments)
        assert not outcome.is_error
        return outcome.text

    async def ask(self, tool: str, server: str = "hostile", **arguments: Any) -> ToolOutcome:
        """A tool's answer."""
        return await self.pool.call(self.owner_id, self.session_id, server, tool, arguments)

    async def tool_names(self, *servers: str) -> list[str]:
        """The tools of these servers, all of which must be there."""
        offered = await self.pool.tools(self.owner_id, self.session_id, servers or ["hostile"])
        assert not offered.unavailable
        return [tool.name for tool in offered.tools]

    async def unavailable(self, server: str = "hostile") -> str:
        """Why a server, which must not be there, is not."""
        offered = await self.pool.tools(self.owner_id, self.session_id, [server])
        assert not offered.tools
        return offered.unavailable[server]


@pytest.fixture
async def home(tmp_path: Path) -> AsyncGenerator[Path, None]:
    """The directory in which servers run; afterwards no process is in it any more."""
    yield tmp_path
    await eventually(lambda: not inhabitants(tmp_path))


@pytest.fixture
def hostile(home: Path) -> Callable[..., McpServer]:
    """Makes the configuration of a hostile server with some manners."""

    def make(*manners: str, name: str = "hostile", **changes: Any) -> McpServer:
        program = Program(sys.executable, ("-S", "-E", str(HOSTILE), *manners), cwd=str(home))
        return replace(McpServer(name, program, mode="legacy"), **changes)

    return make


@asynccontextmanager
async def pooled(*servers: McpServer, **limits: Any) -> AsyncGenerator[Caller, None]:
    """Somebody with a running pool of these servers. Starting may take long on a busy machine."""
    pool = McpPool(servers, replace(McpLimits(wait_seconds=30.0), **limits))
    async with pool.running():
        yield Caller(pool)


def inhabitants(home: Path) -> set[int]:
    """The living processes whose working directory that is."""
    return {process for path in Path("/proc").iterdir() if (process := _lives_in(path, home))}


def _lives_in(path: Path, home: Path) -> int:
    try:
        is_there = path.name.isdigit() and Path(os.readlink(path / "cwd")) == home.resolve()
        state = (path / "stat").read_text().rpartition(") ")[2][:1] if is_there else "Z"
    except OSError:
        return 0
    return 0 if state == "Z" else int(path.name)
