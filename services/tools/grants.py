"""Which tools may be used: what a session, its persona, the operator and the tool itself say of it. Pure.

The `tools` field of personas and sessions is `{"servers": {name: {"enabled": bool, "tools": {tool: grant}}}}`; the
tool `*` stands for all that are not named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Grant = Literal["auto", "ask", "never"]
"""Whether a tool may be called: at once, after somebody has agreed, or not at all."""

Words = Sequence[Mapping[str, Any]]
"""`tools` fields, those that go before the others first."""

EVERY = "*"


@dataclass(frozen=True, slots=True)
class Nature:
    """What is known of a tool: its server, its name there, what the operator says, and what it says of itself."""

    server: str
    name: str
    operator: Grant | None = None
    destructive: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tool may be used, and for people the reason if somebody is asked."""

    grant: Grant
    reason: str = ""


def is_enabled(words: Words, server: str, *, default: bool) -> bool:
    """Whether a server's tools are offered at all."""
    named = [_server(word, server) for word in words]
    explicit = next((said["enabled"] for said in named if said is not None and "enabled" in said), None)
    if explicit is not None:
        return bool(explicit)
    return default or any(said is not None for said in named)


def verdict(words: Words, tool: Nature) -> Verdict:
    """Whether `tool` may be used.

    The operator's `never` is final. A tool that has changed since somebody agreed to it is asked about again.
    """
    said = _grant(words, tool)
    if tool.operator == "never" or said == "never":
        return Verdict("never")
    if tool.changed:
        return Verdict("ask", "The server describes this tool in other words than before.")
    if said is not None:
        return Verdict(said, "You want to be asked about this tool." if said == "ask" else "")
    if tool.operator is not None:
        reason = "The operator wants this tool to be asked about." if tool.operator == "ask" else ""
        return Verdict(tool.operator, reason)
    return Verdict("ask", "The tool says that it can destroy things.") if tool.destructive else Verdict("auto")


def remembered(field: Mapping[str, Any], server: str, tool: str, grant: Grant) -> dict[str, Any]:
    """The `tools` field with a word on one tool in it; what it said of others stays."""
    servers: dict[str, Any] = dict(field.get("servers") or {})
    of_server: dict[str, Any] = dict(servers.get(server) or {})
    of_server["tools"] = {**(of_server.get("tools") or {}), tool: grant}
    return {**field, "servers": {**servers, server: of_server}}


def _grant(words: Words, tool: Nature) -> Grant | None:
    for word in words:
        tools: Mapping[str, Grant] = (_server(word, tool.server) or {}).get("tools") or {}
        if (said := tools.get(tool.name) or tools.get(EVERY)) is not None:
            return said
    return None


def _server(word: Mapping[str, Any], server: str) -> Mapping[str, Any] | None:
    servers: Mapping[str, Mapping[str, Any]] = word.get("servers") or {}
    return servers.get(server)
