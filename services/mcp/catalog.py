"""What a server says about its tools, turned into what can be shown to a model."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence

from mcp import Client
from mcp_types import Tool, ToolAnnotations

from services.mcp.config import McpServer
from services.mcp.listing import PERMISSIVE
from services.mcp.naming import qualified_name
from services.mcp.schemas import UnusableSchema, checked
from services.mcp.types import Approval, McpLimits, McpTool
from services.providers.text import clean_text

_log = logging.getLogger(__name__)

_LONGEST_DESCRIPTION = 4_000
_LONGEST_NAME = 256
_MOST_PAGES = 32
_MOST_REMEMBERED = 2_048
"""Tools of a server whose first description is remembered; further ones count as changed."""

# Letters that a model reads and a person does not see, or sees in another order.
_UNSEEN = re.compile("[\U000e0000-\U000e007f\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff]")


class Catalog:
    """The tools of one server, read anew when that is due."""

    def __init__(self, server: McpServer, limits: McpLimits, first_seen: dict[str, str]) -> None:
        """`first_seen`: how the server described its tools at first, by their names; filled here."""
        self._server = server
        self._limits = limits
        self._first_seen = first_seen

    async def read(self, client: Client) -> tuple[McpTool, ...]:
        """What the server lists now: each name once, not too many; what is wrong with one tool costs only that."""
        listed: list[Tool] = []
        cursor: str | None = None
        if client.server_capabilities.tools is not None:
            for _ in range(_MOST_PAGES):
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                cursor = page.next_cursor
                if cursor is None or len(listed) > self._limits.tools:
                    break
        # Checking hundreds of schemas takes its time.
        return await asyncio.to_thread(self._made_of, listed)

    def _made_of(self, listed: Sequence[Tool]) -> tuple[McpTool, ...]:
        tools: dict[str, McpTool] = {}
        for tool in listed:
            if len(tools) == self._limits.tools:
                self._warn("offers more than %d tools; the rest is left out", len(tools))
                break
            if not tool.name or len(tool.name) > _LONGEST_NAME or tool.name != clean_text(tool.name):
                self._warn("offers a tool that has no usable name; it is left out")
                continue
            made = self._made(tool)
            if tools.setdefault(made.qualified_name, made) is not made:
                self._warn("offers %r twice; the second is left out", tool.name)
        return tuple(tools.values())

    def _made(self, tool: Tool) -> McpTool:
        server = self._server
        hints = (tool.annotations if server.trusted else None) or ToolAnnotations()
        is_changed = self._is_changed(tool)
        return McpTool(
            server=server.name,
            name=tool.name,
            qualified_name=qualified_name(server.name, tool.name),
            description=_description(tool),
            parameters=self._parameters(tool),
            read_only=hints.read_only_hint is True,
            destructive=hints.read_only_hint is not True and hints.destructive_hint is True,
            idempotent=hints.idempotent_hint is True,
            approval=_approval(server, tool.name, is_changed=is_changed),
            timeout=server.timeout or self._limits.call_seconds,
            changed=is_changed and not server.trusted,
        )

    def _is_changed(self, tool: Tool) -> bool:
        """Whether the server describes it in other words than a person had before them who allowed it."""
        words = tool.model_dump_json(include={"title", "description", "input_schema", "annotations"})
        digest = hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()
        if tool.name not in self._first_seen and len(self._first_seen) < _MOST_REMEMBERED:
            self._first_seen[tool.name] = digest
        is_changed = self._first_seen.get(tool.name) != digest
        if is_changed:
            self._warn("describes %r in other words than at first", tool.name)
        return is_changed

    def _parameters(self, tool: Tool) -> Mapping[str, object]:
        try:
            return checked(tool.input_schema)
        except UnusableSchema as reason:
            self._warn("has parameters of %r that are offered without a schema: %s", tool.name, reason)
            return PERMISSIVE

    def _warn(self, what: str, *values: object) -> None:
        _log.warning(f"tool server %s {what}", self._server.name, *values)


def _approval(server: McpServer, tool: str, *, is_changed: bool) -> Approval | None:
    """The operator's word; a server that is not trusted is asked about where there is none, or its own changed."""
    said = server.approval_of(tool)
    if server.trusted or said == "never":
        return said
    return "ask" if is_changed else said or "ask"


def _description(tool: Tool) -> str:
    text = _UNSEEN.sub("", clean_text(tool.description or tool.title or "")).strip()
    return text if len(text) <= _LONGEST_DESCRIPTION else text[: _LONGEST_DESCRIPTION - 1] + "…"
