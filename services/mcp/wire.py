"""Messages of the protocol, looked at before the client does: what is too large, too many or not in it at all."""

import re
import time
from typing import Any, Final, cast

import orjson
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.jsonrpc import ErrorData
from pydantic import ValidationError

from services.mcp.lines import TooLong
from services.mcp.listing import plain_tools

TOO_LARGE: Final = -32098
UNREACHABLE: Final = -32099
"""Codes of our own, in the range that the standard leaves to implementations."""

GARBLED: Final = "it sent something that is not in its own protocol"

_MOST_NODES = 50_000
"""Objects and lists in one message. Making a million empty ones takes seconds, in which nothing else happens."""
_MOST_PARTS = 256
"""Parts of one result, or tools on one page of a list: each of them is checked by itself."""

# Where nothing but the request's id can stand: before a result, or at the very end.
_ID_FIRST = re.compile(rb'^\s*\{[^{\[]{0,128}?"id"\s*:\s*(\d{1,18}|"[^"\\]{0,128}")')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{0,128}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_ENDS = 512

# Halves of surrogate pairs without the other, which are no Unicode though JSON can write them.
_LONE_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_LONE_LOW = re.compile(rb"(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def read_line(line: bytes, longest: int) -> SessionMessage | None:
    """The message in a line, or the refusal of an answer that cannot be used; None if there is nothing in it."""
    if line.lstrip()[:1] != b"{":
        return None
    if is_too_complex(line):
        return _refusal(line[:_ENDS], line[-_ENDS:], TOO_LARGE, too_large(longest))
    try:
        return bounded(SessionMessage(_message(_parsed(line))))
    except (ValueError, ValidationError):
        return _refusal(line[:_ENDS], line[-_ENDS:], PARSE_ERROR, GARBLED)


def refusal_of(line: TooLong, longest: int) -> SessionMessage | None:
    """What the client is told instead of an answer that is too large; None if it cannot be told whose answer it was."""
    return _refusal(line.head, line.tail, TOO_LARGE, too_large(longest))


def is_too_complex(text: bytes) -> bool:
    """Whether there are more objects and lists in it than can be made in passing."""
    return text.count(b"{") + text.count(b"[") > _MOST_NODES


def bounded(message: SessionMessage) -> SessionMessage:
    """The message, with no more parts of a result than can be looked at, and no list refused for one bad tool."""
    if isinstance(message.message, JSONRPCResponse):
        result = message.message.result
        blocks, tools = result.get("content"), result.get("tools")
        if isinstance(blocks, list):
            result["content"] = cast("list[object]", blocks)[:_MOST_PARTS]
        if isinstance(tools, list):
            result["tools"] = plain_tools(cast("list[object]", tools)[:_MOST_PARTS])
    return message


def error_message(request_id: RequestId, code: int, text: str) -> SessionMessage:
    """An answer to a request that says that it failed."""
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=text)))


def too_large(longest: int) -> str:
    """What is said of an answer over the limit."""
    return f"its answer is larger than {longest / 1_048_576:g} MiB, or has too many parts"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return orjson.loads(_LONE_LOW.sub(rb"\\ufffd", _LONE_HIGH.sub(rb"\\ufffd", line)))


def _message(fields: dict[str, Any]) -> JSONRPCMessage:
    # The library tries out every kind for every message, which costs five times as much.
    if "method" in fields:
        kind = JSONRPCRequest if "id" in fields else JSONRPCNotification
    else:
        kind = JSONRPCError if "error" in fields else JSONRPCResponse
    return kind.model_validate(fields, by_name=False)


def _refusal(head: bytes, tail: bytes, code: int, words: str) -> SessionMessage | None:
    found = None if b'"method"' in head else _ID_FIRST.search(head) or _ID_LAST.search(tail)
    if not found:
        return None
    id = found.group(1).decode(errors="replace")
    return error_message(id.strip('"') if id.startswith('"') else int(id), code, words)


class NoiseGuard:
    """Lets so many notices and requests of a server through in a second, and no more; it does not parse them."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._looked = time.monotonic()

    def refuses(self, line: bytes) -> bool:
        """Whether the line is one too many, and no answer."""
        head = line[:_ENDS]
        if b'"method"' not in head or b'"result"' in head or b'"error"' in head:
            return False
        now = time.monotonic()
        self._left = min(self._per_second, self._left + (now - self._looked) * self._per_second)
        self._looked = now
        if self._left < 1:
            return True
        self._left -= 1
        return False
