"""The newer kind of the protocol: without a conversation, and with changes told to those who ask."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.mcp.config import Address, McpServer, Program
from services.mcp.types import ToolProgress
from tests.integration.mcp.conftest import Caller, pooled
from tests.integration.mcp.test_http import program
from tests.waiting import eventually

MODERN = str(Path(__file__).parents[2] / "fakes" / "modern_tools.py")


@asynccontextmanager
async def over(transport: str) -> AsyncGenerator[Caller, None]:
    """Somebody who uses that server over pipes or HTTP."""
    if transport == "pipes":
        async with pooled(McpServer("modern", Program(sys.executable, ("-P", MODERN)))) as caller:
            yield caller
    else:
        async with program("-P", MODERN) as url, pooled(McpServer("modern", Address(url))) as caller:
            yield caller


@pytest.mark.parametrize("transport", ["pipes", "http"])
async def test_a_new_tool_is_seen_by_the_next_list_and_can_be_called(transport: str) -> None:
    async with over(transport) as caller:
        assert await caller.tool_names("modern") == ["grow", "dawdle"]
        await caller.call("grow", "modern")
        await eventually(lambda: _has_newcomer(caller))

        assert await caller.call("newcomer", "modern") == "here I am"


async def _has_newcomer(caller: Caller) -> bool:
    return "newcomer" in await caller.tool_names("modern")


@pytest.mark.parametrize("transport", ["pipes", "http"])
async def test_a_cancelled_call_leaves_the_server_in_order(transport: str) -> None:
    seen: list[ToolProgress] = []
    async with over(transport) as caller:
        call = asyncio.create_task(
            caller.pool.call(caller.owner_id, caller.session_id, "modern", "dawdle", {}, on_progress=seen.append)
        )
        await eventually(lambda: seen, 20)
        call.cancel()
        await asyncio.wait([call])

        assert call.cancelled()
        assert await caller.tool_names("modern")

    assert seen == [ToolProgress(1, 2, "half way")]
