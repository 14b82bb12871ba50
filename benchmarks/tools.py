"""What the pool adds to a tool: to find out what there is, and to call it; against the bare client of the protocol."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from benchmarks.report import Figures, compare, in_turns, percentile
from db.ids import SessionId, UserId, new_id
from services.mcp.config import McpServer, Program
from services.mcp.pool import McpPool
from services.mcp.types import McpLimits

_SERVER = Path(__file__).parents[1] / "tests" / "fakes" / "hostile_tools.py"
# The fake that the tests use, on its best behaviour: it starts in no time, and speaks the older kind of the protocol.
_WORDS = ("-S", "-E", str(_SERVER))
_BIG = 2_000_000


class Tools:
    """One way to reach the same server."""

    def __init__(
        self, names: Callable[[], Awaitable[int]], call: Callable[[str, dict[str, Any]], Awaitable[object]]
    ) -> None:
        self.names = names
        self.call = call


Open = Callable[[], AbstractAsyncContextManager[Tools]]


async def run(home: Path, *, quick: bool) -> None:
    """Print times of lists and calls through the pool and through the client that it uses."""
    rounds, calls = (1, 50) if quick else (5, 500)
    measures = {"pool": partial(_measure, _pooled, calls), "bare client": partial(_measure, _bare, calls)}
    compare(f"tools: {calls} calls of one server over its pipes", await in_turns(rounds, measures), "bare client")


async def _measure(open_: Open, calls: int) -> Figures:
    begun = time.perf_counter()
    async with open_() as tools:
        await tools.names()
        start = time.perf_counter() - begun
        lists = [await _timed(tools.names()) for _ in range(calls)]
        used = time.process_time()
        one = [await _timed(tools.call("echo", {"a": 1})) for _ in range(calls)]
        used = time.process_time() - used
        begun = time.perf_counter()
        await asyncio.gather(*(tools.call("echo", {"a": at}) for at in range(calls)))
        together = time.perf_counter() - begun
        big = [await _timed(tools.call("big", {"bytes": _BIG})) for _ in range(3)]
    return {
        "start and first list [ms]": start * 1e3,
        "list, warm, p50 [us]": percentile(lists, 0.5) * 1e6,
        "list, warm, p99 [us]": percentile(lists, 0.99) * 1e6,
        "call, p50 [us]": percentile(one, 0.5) * 1e6,
        "call, p99 [us]": percentile(one, 0.99) * 1e6,
        "our CPU per call [us]": used / calls * 1e6,
        "many at once, each [us]": together / calls * 1e6,
        "answer of 2 MB [ms]": percentile(big, 0.5) * 1e3,
    }


async def _timed(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


@asynccontextmanager
async def _pooled() -> AsyncGenerator[Tools, None]:
    owner, session = UserId(new_id()), SessionId(new_id())
    server = McpServer("fake", Program(sys.executable, _WORDS), mode="legacy")
    pool = McpPool([server], McpLimits(wait_seconds=30))

    async def names() -> int:
        return len((await pool.tools(owner, session, ["fake"])).tools)

    async with pool.running():
        yield Tools(names, lambda tool, arguments: pool.call(owner, session, "fake", tool, arguments))


@asynccontextmanager
async def _bare() -> AsyncGenerator[Tools, None]:
    server = StdioServerParameters(command=sys.executable, args=list(_WORDS), env=dict(os.environ))
    async with Client(server, mode="legacy", cache=None) as client:

        async def names() -> int:
            return len((await client.list_tools()).tools)

        yield Tools(names, client.call_tool)
