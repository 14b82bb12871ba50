"""Hearing of changes from servers of the protocol's newer kind, which tell only those who ask."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Final

from mcp import Client, MCPError
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

_ACKNOWLEDGE_SECONDS: Final = 2.0
"""For a server to confirm that it will tell."""
_RETRY_SECONDS: Final = 5.0


@contextlib.asynccontextmanager
async def told_of_changes(client: Client, on_change: Callable[[], None]) -> AsyncGenerator[None, None]:
    """`on_change` is called for every change to a list of tools that is read inside.

    Does nothing for servers that do not offer it. Those of the older kind tell the client's message handler unasked.
    """
    begun = asyncio.Event()
    listening = asyncio.create_task(_listen(client, on_change, begun))
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ACKNOWLEDGE_SECONDS):
                await begun.wait()
        yield
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(client: Client, on_change: Callable[[], None], begun: asyncio.Event) -> None:
    tools = client.server_capabilities.tools
    try:
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS and tools and tools.list_changed:
            await _subscribe(client, on_change, begun)
    except (MCPError, TimeoutError):
        pass  # it was offered, but is not to be had
    finally:
        begun.set()


async def _subscribe(client: Client, on_change: Callable[[], None], begun: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(SubscriptionLost):
            async with client.listen(tools_list_changed=True) as changes:
                if begun.is_set():
                    on_change()  # perhaps, while nobody listened
                begun.set()
                async for _ in changes:
                    on_change()
        await asyncio.sleep(_RETRY_SECONDS)
