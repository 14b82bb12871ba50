"""A tool server as the operator wants it, and those that are there without being asked for."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.mcp.types import Approval, Isolation

Mode = Literal["auto", "legacy"]
"""`legacy` greets the server in the older way at once: for those that leave the newer greeting unanswered."""


@dataclass(frozen=True, slots=True)
class Program:
    """A server that is started as a process and spoken to over its standard input and output."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """In addition to the few variables that every server gets."""
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A server that runs elsewhere and is spoken to over streamable HTTP."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True)
class McpServer:
    """One server as the operator configured it."""

    name: str
    reach: Program | Address
    description: str = ""
    default: bool = True
    """On, unless a persona or session says otherwise."""
    isolation: Isolation = "shared"
    approval: Mapping[str, Approval] = field(default_factory=dict[str, Approval])
    """By the tool's name, with `*` for those not named."""
    timeout: float | None = None
    """Seconds that a call may take; None is the service's own."""
    trusted: bool = True
    """Whether to believe what it says about its tools: that they only read, and that nothing changed."""
    mode: Mode = "auto"

    def approval_of(self, tool: str) -> Approval | None:
        """What the operator said of `tool`."""
        return self.approval.get(tool) or self.approval.get("*")


def built_in_servers() -> tuple[McpServer, ...]:
    """What works out of the box, without network and configuration."""
    # -P: the directory that we were started in is not searched for modules.
    clock = Program(sys.executable, ("-P", "-m", "mcp_server_time"))
    return (McpServer("time", clock, "What time it is, here and in other time zones.", default=False),)
