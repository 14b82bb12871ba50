"""One life of a server: opened, watched and closed by one task of its own, whatever becomes of those who use it.

Imported only when a server is needed: the protocol's client takes a second or more to load.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import mcp_types as spoken
from mcp import Client
from mcp.client import IncomingMessage, Transport
from pydantic import TypeAdapter

from services.errors import ToolFailed, ToolUnavailable
from services.mcp.catalog import Catalog
from services.mcp.changes import told_of_changes
from services.mcp.config import McpServer, Program
from services.mcp.faults import NothingDone, unusable
from services.mcp.http import HttpTransport
from services.mcp.outcome import outcome_of
from services.mcp.progress import Reporter
from services.mcp.stdio import StdioTransport
from services.mcp.translation import reason_of, translated
from services.mcp.types import McpLimits, McpTool, OnProgress, ToolOutcome

_LOOKS = 5.0
"""At a server's tools when it says that they have changed: so many at once, and one in a second."""

_ANSWER: Final[TypeAdapter[spoken.CallToolResult | spoken.InputRequiredResult]] = TypeAdapter(
    spoken.CallToolResult | spoken.InputRequiredResult
)


class Connection:
    """A running server with what it offers. Others hand it calls; its own task alone opens and closes it."""

    def __init__(self, server: McpServer, limits: McpLimits, first_seen: dict[str, str]) -> None:
        """`first_seen`: how the server described its tools at first; filled here when it is empty."""
        self.tools: tuple[McpTool, ...] = ()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when calls can be made; has the reason as exception if it could not be opened."""
        self.ready.add_done_callback(_retrieve)  # perhaps nobody else looks
        self.reason: str | None = None
        """Why it ended, if it did not because it was asked to."""
        self._server = server
        self._limits = limits
        self._catalog = Catalog(server, limits, first_seen)
        self._client: Client | None = None
        self._opening: asyncio.Timeout | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._fresh = asyncio.Event()
        self._has_changed = False
        self._is_sound = asyncio.Event()
        self._is_sound.set()
        self._ended_by_itself = False
        self._looked = 0.0
        self._looks_left = _LOOKS
        self._stdio: StdioTransport | None = None
        self.task = asyncio.create_task(self._live(), name=f"tool server {server.name}")

    @property
    def is_usable(self) -> bool:
        """Whether it is open, or about to be."""
        return not (self._stopping or self.reason or self.task.done())

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken calls."""
        return self.ready.done() and self.ready.exception() is None

    @property
    def is_fresh(self) -> bool:
        """Whether `tools` are what the server last said."""
        return self._fresh.is_set()

    async def fresh(self, seconds: float) -> None:
        """Wait for `tools` to be read anew, no longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._fresh.wait()

    def stop(self, reason: str | None = None) -> None:
        """Have it closed, without waiting. Calls that are under way end with `ConnectionEnded`."""
        self.reason = self.reason or reason
        self._stopping = True
        self._wake.set()
        if self._opening is not None:
            with contextlib.suppress(RuntimeError):  # it is over just now
                self._opening.reschedule(0)

    def suspect(self) -> None:
        """Have it asked for a sign of life now; without one it is closed."""
        self._is_sound.clear()
        self._wake.set()

    async def judged(self) -> None:
        """Return when it is not under suspicion, or has ended; that takes no longer than a sign of life may."""
        await self._is_sound.wait()

    def kill(self) -> None:
        """End a process that does not let itself be closed."""
        if self._stdio:
            self._stdio.kill()

    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, seconds: float, on_progress: OnProgress | None
    ) -> ToolOutcome:
        """Call a tool; the server is told if we do not wait any longer. Raises `ToolError`."""
        client = self._client
        if client is None or not self.is_usable:
            raise NothingDone(f"The tool server {self._server.name} has just ended.", server=self._server.name)
        request = spoken.CallToolRequest(params=spoken.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        try:
            with translated(self._server.name), Reporter(on_progress) as report:
                # Not `call_tool`: it checks results by the server's own schema, whose patterns could stop the loop.
                answer = await client.session.send_request(
                    request, _ANSWER, request_read_timeout_seconds=seconds, progress_callback=report
                )
        except NothingDone as error:
            self.stop(error.message)
            raise
        if isinstance(answer, spoken.InputRequiredResult):
            raise ToolFailed("The tool asks for more than its arguments, which is not possible here.")
        return outcome_of(answer, longest=self._limits.text_characters)

    # --- its task ---

    async def _live(self) -> None:
        try:
            async with self._open() as client:
                self._client = client
                self.ready.set_result(None)
                await self._watch(client)
        except Exception as error:  # noqa: BLE001 - the border of somebody else's code: its fault is the reason
            self.reason = self.reason or reason_of(error)
        finally:
            self._client = None
            self._is_sound.set()
            if self._stdio and self._ended_by_itself:
                self.reason = self._stdio.outcome() or self.reason
            if not self.ready.done():
                self.reason = self.reason or "it was stopped"
                self.ready.set_exception(ToolUnavailable(unusable(self._server.name, self.reason)))

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncGenerator[Client, None]:
        async with contextlib.AsyncExitStack() as stack:
            if self._stopping:
                raise ToolUnavailable("it was stopped")
            try:
                async with asyncio.timeout(self._limits.start_seconds) as self._opening:
                    client = await stack.enter_async_context(self._make_client())
                    await stack.enter_async_context(told_of_changes(client, self._tools_changed))
                    await self._look(client)
            except TimeoutError:
                seconds = self._limits.start_seconds
                raise ToolUnavailable(
                    "" if self._stopping else f"it did not start within {seconds:g} seconds"
                ) from None
            finally:
                self._opening = None
            yield client

    def _make_client(self) -> Client:
        return Client(
            self._transport(),
            mode=self._server.mode,
            cache=None,
            read_timeout_seconds=self._limits.start_seconds,
            message_handler=self._hear,
            client_info=spoken.Implementation(name="colloquy", version=_version()),
        )

    def _transport(self) -> Transport:
        longest = self._limits.message_bytes
        reach = self._server.reach
        if isinstance(reach, Program):
            self._stdio = StdioTransport(self._server.name, reach, longest=longest, on_end=self._has_ended)
            return self._stdio
        return HttpTransport(reach, longest=longest)

    def _has_ended(self) -> None:
        """Called when the server has ended by itself."""
        self._ended_by_itself = True
        self.reason = self.reason or "it ended"
        self._wake.set()

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, spoken.ToolListChangedNotification):
            self._tools_changed()

    def _tools_changed(self) -> None:
        self._has_changed = True
        self._fresh.clear()
        self._wake.set()

    async def _watch(self, client: Client) -> None:
        """Until it is to be closed, or has ended: keep the tools up to date, and see that it still answers."""
        while self.is_usable:
            if (rest := self._due() - asyncio.get_running_loop().time()) > 0:
                await self._doze(rest)
            else:
                await self._visit(client)

    def _due(self) -> float:
        """When the server is to be looked at again, in the loop's time."""
        if not self._is_sound.is_set():
            return 0
        if self.is_fresh:
            return self._looked + self._limits.probe_seconds
        return self._looked + max(0.0, 1.0 - self._looks_left)

    async def _doze(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _visit(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                await self._look(client)
        except TimeoutError:
            self.reason = "it does not answer any more"
            self.kill()  # there is nobody who would end in peace
        self._is_sound.set()

    async def _look(self, client: Client) -> None:
        """Read the list of tools anew, which is also a sign of life."""
        self._has_changed = False  # what changes from here on may not be in the list
        self.tools = await self._catalog.read(client)
        if not self._has_changed:
            self._fresh.set()
        now = asyncio.get_running_loop().time()
        self._looks_left = min(_LOOKS, self._looks_left + now - self._looked) - 1
        self._looked = now


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()


def _version() -> str:
    try:
        return version("colloquy")
    except PackageNotFoundError:
        return "0"
