"""The pool of tool servers: who needs one gets the running copy that is meant for them, or a fresh one.

Servers come from the operator's file alone. Nothing is started, and the protocol's client is not even loaded, before
somebody needs a tool.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from db.ids import SessionId, UserId
from services.errors import ToolError, ToolFailed, ToolUnavailable
from services.mcp.config import McpServer, Program
from services.mcp.faults import ConnectionEnded, NothingDone, unusable
from services.mcp.instance import Instance
from services.mcp.types import McpLimits, McpTool, OnProgress, ServerStatus, ToolList, ToolOutcome

_Key = tuple[str, UUID | None]
"""A server, and the user or session that its copy is for."""


class McpPool:
    """All tool servers. Use it inside `running()`, which ends their processes."""

    def __init__(self, servers: Sequence[McpServer], limits: McpLimits | None = None) -> None:
        """Starts nothing."""
        self._servers = {server.name: server for server in servers}
        self._limits = limits or McpLimits()
        self._instances: dict[_Key, Instance] = {}
        self._first_seen: dict[str, dict[str, str]] = {name: {} for name in self._servers}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """On leaving, calls that are under way fail and all processes end, in bounded time."""
        sweeper = asyncio.create_task(self._sweep(), name="stop idle tool servers")
        try:
            yield
        finally:
            self._is_closed = True
            sweeper.cancel()
            for key in list(self._instances):
                self._end(key)
            await asyncio.wait([sweeper, *self._ending])

    @property
    def defaults(self) -> list[str]:
        """The servers that are on where nobody says anything."""
        return [server.name for server in self._servers.values() if server.default]

    async def tools(self, owner_id: UserId, session_id: SessionId, servers: Collection[str]) -> ToolList:
        """The tools of these servers, in that order. A server that cannot be used costs only its own tools.

        Waits for servers that are still starting, for as long as the limits say; they go on starting after that.
        """
        names = list(dict.fromkeys(servers))
        found = await asyncio.gather(*(self._tools_of(name, owner_id, session_id) for name in names))
        tools = tuple(tool for one in found if not isinstance(one, str) for tool in one)
        reasons = {name: one for name, one in zip(names, found, strict=True) if isinstance(one, str)}
        return ToolList(tools, reasons)

    async def call(
        self,
        owner_id: UserId,
        session_id: SessionId,
        server: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        on_progress: OnProgress | None = None,
    ) -> ToolOutcome:
        """Call `tool`, by the server's own name for it. Cancelling tells the server, and does not wait for it.

        Raises ToolUnavailable, ToolTimedOut or ToolFailed; none of them says that the tool did nothing. If the server
        dies meanwhile, a tool that only reads, or may be repeated, is called once more.
        """
        instance = self._instance(server, owner_id, session_id)
        if instance.server.approval_of(tool) == "never":
            raise ToolFailed(f"The tool {tool} of {server} may not be called here.", server=server, tool=tool)
        seconds = instance.server.timeout or self._limits.call_seconds
        try:
            return await instance.call(tool, arguments, seconds=seconds, on_progress=on_progress)
        except ConnectionEnded as error:
            if not (isinstance(error, NothingDone) or _may_repeat(instance, tool)):
                raise
        return await instance.call(tool, arguments, seconds=seconds, on_progress=on_progress)

    async def end_session(self, session_id: SessionId) -> None:
        """Stop what runs for this session alone."""
        ended = [self._end(key) for key in list(self._instances) if key[1] == session_id]
        if ended:
            await asyncio.wait(ended)

    def servers(self) -> list[ServerStatus]:
        """How each server is, in the order of the configuration."""
        return [self._status(server) for server in self._servers.values()]

    async def _tools_of(self, name: str, owner_id: UserId, session_id: SessionId) -> "tuple[McpTool, ...] | str":
        try:
            return await self._instance(name, owner_id, session_id).list_tools(self._limits.wait_seconds)
        except ToolError as error:
            return error.message

    # --- copies ---

    def _instance(self, name: str, owner_id: UserId, session_id: SessionId) -> Instance:
        server = self._servers.get(name)
        if server is None:
            raise ToolUnavailable(f"There is no tool server called {name}.", server=name)
        if self._is_closed:
            raise ToolUnavailable(unusable(name, "the service is going down"), server=name)
        whose = {"shared": None, "user": owner_id, "session": session_id}[server.isolation]
        key = (name, whose)
        if key not in self._instances:
            if whose is not None:
                self._make_room(name)
            self._instances[key] = Instance(server, self._limits, self._first_seen[name])
        return self._instances[key]

    def _make_room(self, name: str) -> None:
        """For one more copy that is not shared: the one that was needed least recently has to go."""
        apart = [key for key in self._instances if key[1] is not None]
        if len(apart) < self._limits.copies:
            return
        idle = [key for key in apart if not self._instances[key].is_needed]
        if not idle:
            raise ToolUnavailable(unusable(name, "too many tool servers are at work just now"), server=name)
        self._end(max(idle, key=lambda key: self._instances[key].idle_seconds))

    async def _sweep(self) -> None:
        """Stop copies that nobody has needed for long; shared ones stay."""
        while True:
            await asyncio.sleep(self._limits.idle_seconds / 4)
            for key, instance in list(self._instances.items()):
                if key[1] is not None and instance.idle_seconds > self._limits.idle_seconds:
                    self._end(key)

    def _end(self, key: _Key) -> "asyncio.Task[None]":
        ending = asyncio.create_task(self._instances.pop(key).close(), name=f"end tool server {key[0]}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    def _status(self, server: McpServer) -> ServerStatus:
        copies = [instance for (name, _), instance in self._instances.items() if name == server.name]
        worst = next((copy for copy in copies if copy.last_error), copies[0] if copies else None)
        known = next((copy.tools for copy in copies if copy.tools is not None), None)
        return ServerStatus(
            name=server.name,
            description=server.description,
            transport="stdio" if isinstance(server.reach, Program) else "http",
            isolation=server.isolation,
            default=server.default,
            state=worst.state if worst else "idle",
            running=sum(copy.is_running for copy in copies),
            tools=known,
            last_error=worst.last_error if worst else None,
        )


def _may_repeat(instance: Instance, tool: str) -> bool:
    known = next((one for one in instance.tools or () if one.name == tool), None)
    return known is not None and (known.read_only or known.idempotent)
