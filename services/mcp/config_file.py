"""Which tool servers there are: `mcp.json`, in the format that most clients share, with a few keys of our own."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast, get_args
from urllib.parse import urlsplit

from services.mcp.config import Address, McpServer, Mode, Program, built_in_servers
from services.mcp.table import BadMcpConfig, Table
from services.mcp.types import Approval, Isolation

DEFAULT_FILE: Final = Path("mcp.json")

_NAME = re.compile(r"(?!.*(__|_$))[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")
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
    top = Table(document, file)
    top.refuse_unknown(("mcpServers",), {"servers": "mcpServers", "mcp_servers": "mcpServers"})
    servers = Table(top.get("mcpServers", {}), f"{file}: mcpServers")
    found = [
        _server(name, Table(entry, f"{file}: server {name!r}", environment)) for name, entry in servers.table.items()
    ]
    return tuple(server for server in found if server is not None)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r} stands there twice")
    return table


def _server(name: str, entry: Table) -> McpServer | None:
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


def _reach(entry: Table) -> Program | Address:
    is_http = _is_http(entry)
    entry.refuse_unknown((*(_HTTP_KEYS if is_http else _STDIO_KEYS), *_OURS), _SUGGESTIONS)
    if is_http:
        return Address(_url(entry), entry.texts("headers"))
    command = entry.text("command")
    if not command:
        raise entry.fault("'command' is required, or 'url' for a server that is reached over HTTP")
    return Program(command, entry.words("args"), entry.texts("env"), entry.text("cwd"))


def _is_http(entry: Table) -> bool:
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


def _url(entry: Table) -> str:
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


def _approval(entry: Table) -> dict[str, Approval]:
    words = get_args(Approval)
    if not isinstance(entry.get("approval"), dict):
        word = cast("Approval | None", entry.choice("approval", words, None))
        return {"*": word} if word else {}
    chosen = entry.texts("approval")
    for tool, word in chosen.items():
        if word not in words:
            raise entry.fault(f"'approval' of {tool!r} must be one of {', '.join(words)}")
    return cast("dict[str, Approval]", chosen)


def _timeout(entry: Table) -> float | None:
    value = entry.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_TIMEOUT:
        raise entry.fault(f"'timeout' must be a number of seconds, at most {_LONGEST_TIMEOUT}")
    return float(value)
