"""The server that works out of the box, which others wrote, as everybody gets it."""

import json

from db.ids import SessionId, UserId, new_id
from services.mcp.config import built_in_servers
from services.mcp.pool import McpPool
from services.mcp.types import McpLimits

OWNER, SESSION = UserId(new_id()), SessionId(new_id())


async def test_the_built_in_server_offers_its_tools_and_answers() -> None:
    pool = McpPool(built_in_servers(), McpLimits(wait_seconds=30))
    async with pool.running():
        offered = await pool.tools(OWNER, SESSION, ["time"])
        outcome = await pool.call(OWNER, SESSION, "time", "get_current_time", {"timezone": "Asia/Tokyo"})

    assert not offered.unavailable
    assert [tool.qualified_name for tool in offered.tools] == ["time__get_current_time", "time__convert_time"]
    assert all(tool.read_only and not tool.destructive for tool in offered.tools)
    assert offered.tools[0].parameters["properties"]["timezone"]["type"] == "string"
    assert json.loads(outcome.text)["timezone"] == "Asia/Tokyo"
    assert not outcome.is_error


async def test_what_a_tool_cannot_do_is_its_answer() -> None:
    pool = McpPool(built_in_servers(), McpLimits(wait_seconds=30))
    async with pool.running():
        outcome = await pool.call(OWNER, SESSION, "time", "get_current_time", {"timezone": "Atlantis"})

    assert outcome.is_error
    assert "Atlantis" in outcome.text
