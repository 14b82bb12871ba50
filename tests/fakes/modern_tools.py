"""A tool server of the official library, in the protocol's newer kind: over its pipes, or over HTTP on a given port."""

import asyncio
import sys

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("modern")


@server.tool()
async def grow(context: Context) -> str:
    """Have one more tool from now on, and say so."""

    def newcomer() -> str:
        return "here I am"

    server.add_tool(newcomer, name="newcomer", description="Was not there before.")
    await context.notify_tools_changed()
    return "grown"


@server.tool()
async def dawdle(context: Context) -> str:
    """Tell of progress, then wait for ever."""
    await context.report_progress(1, 2, "half way")
    await asyncio.Event().wait()
    return "never"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
