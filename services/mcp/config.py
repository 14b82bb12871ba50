"""Which tool servers there are: `mcp.json`, in the format that most clients share, with a few keys of our own."""

import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import urlsplit

from services.mcp.types import Approval, Isolation

DEFAULT_FILE: Final = Path("mcp.json")

Mode = Literal["auto", "legacy"]
"""`legacy` greets the server in the older way at once: for those that leave the newer greeting unanswered."""

_NAME = re.compile(r"(?!.*(__|_$))[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_LONGEST_TIMEOUT = 3600

_OURS = ("description", "default", "isolation", "approval", "timeout", "trusted", "mode", "disabled", "type")
_STDIO_KEYS = ("command", "args", "env", "cwd")
_HTTP_KEYS = ("url", "headers")
KEYS = (*_STDIO_KEYS, *_HTTP_KEYS, *_OURS)
"""All that a server's entry may have."""

_KINDS = {"stdio": "stdio", "http": "http", "streamable-http": "http", "streamableHttp": "http"}
_SUGGESTIONS = {
    "enabled": "disabled",
    "defaultEnabled": "default",
    "autoApprove": "approval",
    "alwaysAllow": "approval",
    "serverUrl": "url",
    "httpUrl": "url",
    "environment": "env",
}


class BadMcpConfig(Exception):
    """The file cannot be used. The message says where in it, and what to do."""


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


def read_servers(path: Path | None, environment: Mapping[str, str]) -> tuple[McpServer, ...]:
    """The servers of the file at `path`; without a path, those of `mcp.json` here if there is one, else the built-in.

    `environment` has the values of `${NAME}` in the file. Raises BadMcpConfig.
    """
    file = path or DEFAULT_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return built_in_servers()
        raise BadMcpConfig(f"{file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadMcpConfig(f"{file}: cannot be read: {error}") from None
    return parse_servers(text, str(file), environment)


def parse_servers(text: str, file: str, environment: Mapping[str, str]) -> tuple[McpServer, ...]:
    """The servers of such a file's text; `file` is what messages call it. Raises BadMcpConfig."""
    try:
        document: object = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise BadMcpConfig(f"{file}: not JSON as it should be: {error}") from None
    top = _Table(document, file)
    top.refuse_unknown(("mcpServers",), {"servers": "mcpServers", "mcp_servers": "mcpServers"})
    servers = _Table(top.get("mcpServers", {}), f"{file}: mcpServers")
    found = [
        _server(name, _Table(entry, f"{file}: server {name!r}", environment)) for name, entry in servers.table.items()
    ]
    return tuple(server for server in found if server is not None)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r} stands there twice")
    return table


def _server(name: str, entry: "_Table") -> McpServer | None:
    if not _NAME.fullmatch(name):
        raise entry.fault(
            "its name must be at most 32 letters, digits, '-' and single '_', and begin with a letter or digit"
        )
    reach = _reach(entry)
    if entry.flag("disabled", default=False):
        return None
    return McpServer(
        name=name,
        reach=reach,
        description=entry.text("description") or "",
        default=entry.flag("default", default=True),
        isolation=cast("Isolation", entry.choice("isolation", get_args(Isolation), "shared")),
        approval=_approval(entry),
        timeout=_timeout(entry),
        trusted=entry.flag("trusted", default=True),
        mode=cast("Mode", entry.choice("mode", get_args(Mode), "auto")),
    )


def _reach(entry: "_Table") -> Program | Address:
    is_http = _is_http(entry)
    entry.refuse_unknown((*(_HTTP_KEYS if is_http else _STDIO_KEYS), *_OURS), _SUGGESTIONS)
    if is_http:
        return Address(_url(entry), entry.texts("headers"))
    command = entry.text("command")
    if not command:
        raise entry.fault("'command' is required, or 'url' for a server that is reached over HTTP")
    return Program(command, entry.words("args"), entry.texts("env"), entry.text("cwd"))


def _is_http(entry: "_Table") -> bool:
    kind = entry.text("type")
    if "command" in entry.table and "url" in entry.table:
        raise entry.fault("has both 'command' and 'url'; it is either started or reached")
    if kind is None:
        return "url" in entry.table
    if kind == "sse":
        raise entry.fault("'type': the old 'sse' transport is not spoken here; most servers offer streamable HTTP too")
    if kind not in _KINDS:
        raise entry.fault(f"'type' must be one of {', '.join(_KINDS)}")
    return _KINDS[kind] == "http"


def _url(entry: "_Table") -> str:
    url = entry.text("url")
    if not url:
        raise entry.fault("'url' is required for a server of that type")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise entry.fault("'url' must start with http:// or https:// and name a host")
    return url


def _approval(entry: "_Table") -> dict[str, Approval]:
    words = get_args(Approval)
    if not isinstance(entry.get("approval"), dict):
        word = cast("Approval | None", entry.choice("approval", words, None))
        return {"*": word} if word else {}
    chosen = entry.texts("approval")
    for tool, word in chosen.items():
        if word not in words:
            raise entry.fault(f"'approval' of {tool!r} must be one of {', '.join(words)}")
    return cast("dict[str, Approval]", chosen)


def _timeout(entry: "_Table") -> float | None:
    value = entry.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_TIMEOUT:
        raise entry.fault(f"'timeout' must be a number of seconds, at most {_LONGEST_TIMEOUT}")
    return float(value)


class _Table:
    """One JSON object of the file: reads values of an expected type, and says where it stands if they are not."""

    def __init__(self, value: object, where: str, environment: Mapping[str, str] | None = None) -> None:
        self._where = where
        self._environment = environment or {}
        if not isinstance(value, dict):
            raise self.fault("must be an object: { ... }")
        self.table = cast("dict[str, object]", value)

    def fault(self, message: str) -> BadMcpConfig:
        return BadMcpConfig(f"{self._where}: {message}")

    def get(self, key: str, default: object = None) -> object:
        return self.table.get(key, default)

    def refuse_unknown(self, known: tuple[str, ...], suggestions: Mapping[str, str]) -> None:
        for key in self.table:
            if key not in known:
                meant = suggestions.get(key) or next(iter(difflib.get_close_matches(key, known, n=1)), None)
                raise self.fault(f"there is no key {key!r}." + (f" Did you mean {meant!r}?" if meant else ""))

    def text(self, key: str) -> str | None:
        value = self.get(key)
        return None if value is None else self._expanded(value, repr(key))

    def words(self, key: str) -> tuple[str, ...]:
        value = self.get(key, [])
        if not isinstance(value, list):
            raise self.fault(f"{key!r} must be a list of strings")
        items = cast("list[object]", value)
        return tuple(self._expanded(item, f"{key!r}, entry {at}") for at, item in enumerate(items, 1))

    def texts(self, key: str) -> dict[str, str]:
        table = _Table(self.get(key, {}), f"{self._where}: {key!r}").table
        return {name: self._expanded(value, f"{name!r} in {key!r}") for name, value in table.items()}

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(f"{key!r} must be true or false")
        return value

    def choice(self, key: str, words: tuple[str, ...], default: str | None) -> str | None:
        value = self.get(key, default)
        if value is not default and value not in words:
            raise self.fault(f"{key!r} must be one of {', '.join(words)}")
        return cast("str | None", value)

    def _expanded(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise self.fault(f"{what} must be a string")
        if "\0" in value:
            raise self.fault(f"{what} must not contain NUL")
        replace: Callable[[re.Match[str]], str] = lambda match: self._variable(match, what)  # noqa: E731
        return _VARIABLE.sub(replace, value)

    def _variable(self, match: re.Match[str], what: str) -> str:
        name, default = cast("tuple[str, str | None]", match.groups())
        value: Any = self._environment.get(name) or default
        if value is None:
            raise self.fault(f"{what} needs the environment variable {name}, which is not set")
        return cast("str", value)
