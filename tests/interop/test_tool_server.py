"""The example server of the protocol's authors, in their other language: over pipes and over HTTP."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from db.ids import SessionId, UserId, new_id
from services.errors import ToolTimedOut
from services.mcp.config import Address, McpServer, Program
from services.mcp.pool import McpPool
from services.mcp.types import McpLimits, ToolProgress
from tests.integration.mcp.test_http import listening
from tests.interop.build import node, tool_server_path

OWNER, SESSION = UserId(new_id()), SessionId(new_id())


@asynccontextmanager
async def everything(transport: str, timeout: float | None = None) -> AsyncGenerator[McpPool, None]:
    """A pool of that server alone."""
    command = (str(node()), str(tool_server_path()))
    if transport == "pipes":
        async with pool_of(McpServer("every", Program(command[0], command[1:]), timeout=timeout)) as pool:
            yield pool
    else:
        async with (
            listening(*command, "streamableHttp") as url,
            pool_of(McpServer("every", Address(url), timeout=timeout)) as pool,
        ):
            yield pool


@asynccontextmanager
async def pool_of(server: McpServer) -> AsyncGenerator[McpPool, None]:
    pool = McpPool([server], McpLimits(wait_seconds=30))
    async with pool.running():
        yield pool


TRANSPORTS = pytest.mark.parametrize("transport", ["pipes", "http"])


@TRANSPORTS
async def test_its_tools_are_offered_and_answer(transport: str) -> None:
    async with everything(transport) as pool:
        offered = await pool.tools(OWNER, SESSION, ["every"])
        said = await pool.call(OWNER, SESSION, "every", "echo", {"message": "hello"})
        sums = await asyncio.gather(
            *(pool.call(OWNER, SESSION, "every", "get-sum", {"a": at, "b": 1}) for at in range(20))
        )
        picture = await pool.call(OWNER, SESSION, "every", "get-tiny-image", {})
        wrong = await pool.call(OWNER, SESSION, "every", "get-sum", {"a": "x"})

    assert {"every__echo", "every__get-sum"} <= {tool.qualified_name for tool in offered.tools}
    assert said.text == "Echo: hello"
    assert [str(at + 1) in answer.text for at, answer in enumerate(sums)] == [True] * 20
    assert picture.images[0].data.startswith(b"\x89PNG")
    assert wrong.is_error


@TRANSPORTS
async def test_its_progress_arrives(transport: str) -> None:
    seen: list[ToolProgress] = []
    async with everything(transport) as pool:
        await pool.call(
            OWNER,
            SESSION,
            "every",
            "trigger-long-running-operation",
            {"duration": 1, "steps": 4},
            on_progress=seen.append,
        )

    assert [(news.progress, news.total) for news in seen] == [(step, 4) for step in (1, 2, 3, 4)]


@TRANSPORTS
async def test_after_a_call_that_took_too_long_it_serves_on(transport: str) -> None:
    async with everything(transport, timeout=0.5) as pool:
        with pytest.raises(ToolTimedOut):
            await pool.call(OWNER, SESSION, "every", "trigger-long-running-operation", {"duration": 60, "steps": 2})

        assert (await pool.call(OWNER, SESSION, "every", "echo", {"message": "still"})).text == "Echo: still"
        assert pool.servers()[0].state == "ready"
