"""Tool servers, from the settings and the operator's file. Loads next to nothing: each start begins with that file."""

import os

from api.settings import BadSettings, Settings
from services.mcp.config import McpServer
from services.mcp.config_file import read_servers
from services.mcp.pool import McpPool
from services.mcp.table import BadMcpConfig
from services.mcp.types import McpLimits


def tool_servers(settings: Settings) -> tuple[McpServer, ...]:
    """The servers that the operator's file names. Raises BadSettings."""
    try:
        return read_servers(settings.mcp_config, os.environ)
    except BadMcpConfig as error:
        raise BadSettings(f"MCP_CONFIG: {error}") from None


def make_pool(settings: Settings) -> McpPool:
    """The pool, with nothing started. Raises BadSettings."""
    limits, timeouts = settings.limits, settings.timeouts
    return McpPool(
        tool_servers(settings),
        McpLimits(
            start_seconds=timeouts.tool_start,
            wait_seconds=timeouts.tool_wait,
            call_seconds=timeouts.tool_call,
            idle_seconds=timeouts.tool_idle,
            copies=limits.tool_server_copies,
            calls=limits.tool_calls_per_server,
            message_bytes=limits.tool_message_bytes,
            text_characters=limits.tool_text_characters,
        ),
    )
