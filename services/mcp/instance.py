"""One copy of a server, for those who share it: started when it is needed, again when it has ended, not too often."""

import asyncio
import importlib
import logging
import math
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from services.errors import ToolTimedOut, ToolUnavailable
from services.mcp.config import McpServer
from services.mcp.faults import unusable
from services.mcp.types import McpLimits, McpTool, OnProgress, ServerState, ToolOutcome

if TYPE_CHECKING:
    from services.mcp.connection import Connection

_log = logging.getLogger(__name__)

_FIRST_REST: Final = 1.0
_LONGEST_REST: Final = 60.0
"""Seconds after a failure before the next start; doubled each time, and less by a random part."""
_HEALTHY_SECONDS: Final = 30.0
"""After so long a life, what went wrong before is forgotten."""
_TIMEOUTS_IN_A_ROW: Final = 3
"""After so many a server is closed, even if it still says that it is alive."""
_CLOSE_SECONDS: Final = 8.0
_FRESH_SECONDS: Final = 1.0
"""For a list to be read again that is said to have changed; after that the old one has to do."""
_LITTLE_PATIENCE: Final = 0.2
"""For servers that keep failing to start: not everybody is to wait for each attempt."""


class Instance:
    """A copy of a server and all its lives."""

    def __init__(self, server: McpServer, limits: McpLimits, first_seen: dict[str, str]) -> None:
        """`first_seen`: how the server described its tools at first, for all its copies."""
        self.server = server
        self.last_error: str | None = None
        self._limits = limits
        self._first_seen = first_seen
        self._places = asyncio.Semaphore(limits.calls)
        self._users = 0
        self._used = self._now()
        self._connection: Connection | None = None
        self._starting: asyncio.Task[Connection] | None = None
        self._ending: set[Connection] = set()
        self._known: tuple[McpTool, ...] | None = None
        self._opened = 0.0
        self._failures = 0
        self._failed_starts = 0
        self._rests_until = 0.0
        self._timeouts = 0
        self._is_closed = False

    @property
    def state(self) -> ServerState:
        """How it is."""
        self._notice_end()
        if self._starting and not self._starting.done():
            return "starting"
        if self._connection:
            return "ready"
        if self.last_error is None:
            return "idle"
        return "failing" if self._failures > 1 or self._known is None else "resting"

    @property
    def tools(self) -> tuple[McpTool, ...] | None:
        """What it offers, as far as that is known."""
        connection = self._connection
        return connection.tools if connection and connection.was_ready else self._known

    @property
    def is_running(self) -> bool:
        """Whether there is a process, or a connection."""
        return bool(self._connection or self._ending)

    @property
    def is_needed(self) -> bool:
        """Whether somebody waits for it now."""
        return self._users > 0

    @property
    def idle_seconds(self) -> float:
        """How long nobody has needed it; 0 while somebody does."""
        return 0.0 if self.is_needed else self._now() - self._used

    async def list_tools(self, patience: float) -> tuple[McpTool, ...]:
        """Its tools; without any waiting while it runs. Raises `ToolUnavailable`."""
        try:
            async with asyncio.timeout(patience if self._failed_starts <= 1 else min(patience, _LITTLE_PATIENCE)):
                connection = await self._ready()
        except TimeoutError:
            raise ToolUnavailable(unusable(self.server.name, "it is still starting")) from None
        if not connection.is_fresh:
            await connection.fresh(_FRESH_SECONDS)
        self._used = self._now()
        return connection.tools

    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, seconds: float, on_progress: OnProgress | None
    ) -> ToolOutcome:
        """Call a tool. Raises `ToolError`."""
        connection = await self._sound()
        self._users += 1
        try:
            async with asyncio.timeout(seconds), self._places:
                outcome = await connection.call(tool, arguments, seconds=seconds, on_progress=on_progress)
        except (TimeoutError, ToolTimedOut):
            self._timed_out(connection)
            message = f"The tool {tool} of {self.server.name} did not answer within {seconds:g} seconds."
            raise ToolTimedOut(message, server=self.server.name, tool=tool) from None
        finally:
            self._users -= 1
            self._used = self._now()
        self._timeouts = 0
        return outcome

    async def close(self) -> None:
        """Stop it for good. Returns when its process is gone, in bounded time."""
        self._is_closed = True
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._connection:
            self._connection.stop()
            self._notice_end()
        if self._ending:
            await asyncio.gather(*(self._end(connection) for connection in set(self._ending)))

    async def _end(self, connection: "Connection") -> None:
        await asyncio.wait([connection.task], timeout=_CLOSE_SECONDS)
        if not connection.task.done():
            _log.error("tool server %s did not let itself be closed", self.server.name)
            connection.kill()
            connection.task.cancel()
            await asyncio.wait([connection.task], timeout=_CLOSE_SECONDS)

    # --- its lives ---

    async def _sound(self) -> "Connection":
        """A connection that has not just left somebody without an answer: a server that hangs costs one call."""
        connection = await self._ready()
        await connection.judged()
        return connection if connection.is_usable else await self._ready()

    async def _ready(self) -> "Connection":
        """A connection that takes calls: the present one, or a new one, for which all wait together."""
        self._notice_end()
        if self._connection and self._connection.was_ready:
            return self._connection
        if self._starting is None or self._starting.done():
            self._refuse_to_hurry()
            # A task of its own: whoever asked first may be cancelled while others wait.
            self._starting = asyncio.create_task(self._start(), name=f"start tool server {self.server.name}")
            self._starting.add_done_callback(_retrieve)
        return await self._wait_for(self._starting)

    async def _wait_for(self, starting: "asyncio.Task[Connection]") -> "Connection":
        self._users += 1
        try:
            await asyncio.wait([starting])
        finally:
            self._users -= 1
        if starting.cancelled():
            raise ToolUnavailable(unusable(self.server.name, "it was stopped"))
        return starting.result()

    def _refuse_to_hurry(self) -> None:
        name = self.server.name
        if self._is_closed:
            raise ToolUnavailable(unusable(name, "it was stopped"))
        rest = self._rests_until - self._now()
        if rest > 0:
            message = f"{unusable(name, self.last_error or 'it ended')} It is tried again in {rest:.1f} seconds."
            raise ToolUnavailable(message, server=name, retry_after=math.ceil(rest))

    async def _start(self) -> "Connection":
        if self._ending:  # two copies could be in each other's way
            await asyncio.wait([connection.task for connection in self._ending], timeout=_CLOSE_SECONDS)
        connection = await self._begin()
        self._connection, self._opened, self._timeouts = connection, self._now(), 0
        await asyncio.wait([connection.ready])
        if not connection.was_ready:
            self._notice_end()
            raise ToolUnavailable(unusable(self.server.name, self.last_error or "it ended"), server=self.server.name)
        self.last_error, self._known = None, connection.tools
        return connection

    async def _begin(self) -> "Connection":
        try:
            # Imported beside the loop: the protocol's client takes a second or more to load.
            made = await asyncio.to_thread(importlib.import_module, "services.mcp.connection")
            return made.Connection(self.server, self._limits, self._first_seen)
        except ImportError as error:
            self._note(f"its client cannot be loaded: {error}", was_ready=False)
            raise ToolUnavailable(unusable(self.server.name, "its client cannot be loaded")) from error

    def _notice_end(self) -> None:
        """Part with a connection that has ended: note why, and how long to rest before the next."""
        connection = self._connection
        if connection is None or connection.is_usable:
            return
        self._connection = None
        self._ending.add(connection)
        connection.task.add_done_callback(lambda _: self._part_with(connection))
        if connection.was_ready:
            self._known = connection.tools
        if connection.reason:
            self._note(connection.reason, was_ready=connection.was_ready)

    def _part_with(self, connection: "Connection") -> None:
        self._ending.discard(connection)
        if self.last_error and connection.reason:
            self.last_error = connection.reason  # by now it is known how the process ended

    def _note(self, reason: str, *, was_ready: bool) -> None:
        _log.warning("tool server %s: %s", self.server.name, reason)
        self.last_error = reason
        if was_ready and self._now() - self._opened > _HEALTHY_SECONDS:
            self._failures = 0
        self._failures += 1
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        # One death is no habit: it may start again at once.
        doublings = self._failures - (2 if was_ready else 1)
        rest = 0.0 if doublings < 0 else min(_LONGEST_REST, _FIRST_REST * 2**doublings)
        self._rests_until = self._now() + rest * random.uniform(0.5, 1.0)

    def _timed_out(self, connection: "Connection") -> None:
        self._timeouts += 1
        if self._timeouts >= _TIMEOUTS_IN_A_ROW:
            connection.stop(f"{_TIMEOUTS_IN_A_ROW} calls in a row were not answered in time")
        else:
            connection.suspect()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _retrieve(task: "asyncio.Task[Connection]") -> None:
    """Look at how it ended, in case that nobody waits any more."""
    if not task.cancelled():
        task.exception()
