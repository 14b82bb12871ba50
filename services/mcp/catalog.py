"""What a server says about its tools, turned into what can be shown to a model. Not for the event loop."""

import logging
from collections.abc import Mapping, Sequence

from mcp_types import Tool, ToolAnnotations

from services.mcp.config import McpServer
from services.mcp.listing import PERMISSIVE
from services.mcp.naming import qualified_name
from services.mcp.schemas import UnusableSchema, checked
from services.mcp.types import Approval, McpTool
from services.providers.text import clean_text

_log = logging.getLogger(__name__)

_LONGEST_DESCRIPTION = 4_000
_LONGEST_NAME = 256


def catalog(
    server: McpServer, listed: Sequence[Tool], *, most: int, call_seconds: float, first: Mapping[str, str]
) -> tuple[McpTool, ...]:
    """The tools in the order of the list, each name once and at most `most`; what is wrong with one costs only that.

    `first` has the fingerprints of the descriptions that the server gave at first, by the tools' names.
    """
    tools: dict[str, McpTool] = {}
    for tool in listed:
        if len(tools) == most:
            _log.warning("tool server %s offers more than %d tools; the rest is left out", server.name, most)
            break
        if not tool.name or len(tool.name) > _LONGEST_NAME or tool.name != clean_text(tool.name):
            _log.warning("tool server %s offers a tool that has no usable name; it is left out", server.name)
            continue
        made = _tool(server, tool, call_seconds, first)
        if tools.setdefault(made.qualified_name, made) is not made:
            _log.warning("tool server %s offers %r twice; the second is left out", server.name, tool.name)
    return tuple(tools.values())


def fingerprint(tool: Tool) -> str:
    """What a person who allowed the tool had before them."""
    return tool.model_dump_json(include={"title", "description", "input_schema", "annotations"})


def _tool(server: McpServer, tool: Tool, call_seconds: float, first: Mapping[str, str]) -> McpTool:
    hints = (tool.annotations if server.trusted else None) or ToolAnnotations()
    changed = not server.trusted and first.get(tool.name, "") not in ("", fingerprint(tool))
    return McpTool(
        server=server.name,
        name=tool.name,
        qualified_name=qualified_name(server.name, tool.name),
        description=_description(tool),
        parameters=_parameters(server, tool),
        read_only=hints.read_only_hint is True,
        destructive=hints.read_only_hint is not True and hints.destructive_hint is True,
        idempotent=hints.idempotent_hint is True,
        approval=_approval(server, tool, changed=changed),
        timeout=server.timeout or call_seconds,
        changed=changed,
    )


def _approval(server: McpServer, tool: Tool, *, changed: bool) -> Approval | None:
    """The operator's word; a server that is not trusted is asked about where there is none, or its own changed."""
    said = server.approval_of(tool.name)
    if server.trusted or said == "never":
        return said
    return "ask" if changed else said or "ask"


def _description(tool: Tool) -> str:
    text = clean_text(tool.description or tool.title or "").strip()
    return text if len(text) <= _LONGEST_DESCRIPTION else text[: _LONGEST_DESCRIPTION - 1] + "…"


def _parameters(server: McpServer, tool: Tool) -> Mapping[str, object]:
    try:
        return checked(tool.input_schema)
    except UnusableSchema as reason:
        _log.warning(
            "the parameters of %r of tool server %s are offered without a schema: %s", tool.name, server.name, reason
        )
        return PERMISSIVE
