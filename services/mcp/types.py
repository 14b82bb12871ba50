"""What the pool of tool servers says to those who use it. The protocol's own vocabulary does not leave this folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Approval = Literal["auto", "ask", "never"]
"""Whether a tool may be called: at once, after somebody has agreed, or not at all."""

Isolation = Literal["shared", "user", "session"]
"""Who shares one running copy of a server: everybody, one user, or one session."""

ServerState = Literal["idle", "starting", "ready", "resting", "failing"]
"""`idle`: nobody has needed it. `resting`: it ended, and starts again when it is needed. `failing`: it could not
start, or ended soon after."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as its server describes it, made safe to be shown to a model."""

    server: str
    name: str
    """What the server calls it."""
    qualified_name: str
    """`server__tool`: unique among all tools, at most 64 characters of `a-z A-Z 0-9 _ -`."""
    description: str
    parameters: Mapping[str, Any]
    """A JSON Schema of an object, valid and of a reasonable size."""
    read_only: bool
    destructive: bool
    idempotent: bool
    approval: Approval | None
    """What the operator said of it; None if nothing."""
    timeout: float
    """Seconds that a call may take."""
    changed: bool = False
    """The server is not trusted and describes the tool in other words than at first: whatever was agreed to before
    does not count."""


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of some servers; `unavailable` has the reason for each that has none to offer now."""

    tools: tuple[McpTool, ...]
    unavailable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToolImage:
    """A picture in a tool's answer."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool answered. `is_error`: the tool itself says that it could not do it."""

    text: str
    is_error: bool = False
    truncated: bool = False
    images: tuple[ToolImage, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a call has come, in the server's own measure."""

    progress: float
    total: float | None
    message: str


OnProgress = Callable[[ToolProgress], None]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How one server of the configuration is."""

    name: str
    description: str
    transport: Literal["stdio", "http"]
    isolation: Isolation
    default: bool
    """On, unless a persona or session says otherwise."""
    state: ServerState
    running: int
    """Copies that run now."""
    tools: tuple[McpTool, ...] | None
    """As far as they are known: None before the first start."""
    last_error: str | None


@dataclass(frozen=True, slots=True)
class McpLimits:
    """What tool servers may use up: seconds, bytes and numbers."""

    start_seconds: float = 30.0
    """For a server to start and list its tools."""
    wait_seconds: float = 5.0
    """How long a list of tools waits for servers that are starting."""
    call_seconds: float = 60.0
    """A call, for servers whose configuration says nothing else."""
    idle_seconds: float = 600.0
    """After which a copy of a server that is not shared is stopped."""
    probe_seconds: float = 60.0
    """Without a sign of life, after which a server is asked for one."""
    answer_seconds: float = 5.0
    """For that sign of life."""
    copies: int = 16
    """Copies of servers that are not shared, of all users and sessions together."""
    calls: int = 16
    """Calls that one copy of a server is given at once; further ones wait."""
    message_bytes: int = 4_194_304
    """The largest message taken from a server."""
    text_characters: int = 1_048_576
    """The longest text of a result; the rest is cut off."""
    tools: int = 256
    """Tools that one server may offer."""
