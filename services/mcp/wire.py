"""Messages of the protocol, looked at before the client does: what is too large, too many or not in it at all."""

import re
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse, RequestId, jsonrpc_message_adapter
from mcp_types.jsonrpc import ErrorData

from services.mcp.lines import TooLong

TOO_LARGE: Final = -32098
UNREACHABLE: Final = -32099
"""Codes of our own, in the range that the standard leaves to implementations."""

_MOST_BLOCKS = 256
"""Parts of one result; each is checked one by one, which thousands of tiny ones would make long."""

# Where nothing but the id can stand: before a result, or at the very end.
_ID_FIRST = re.compile(rb'^[^{]*\{[^{\[]{0,128}?"id"\s*:\s*(\d{1,18}|"[^"\\]{0,128}")')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{0,128}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_NOISE = (b'"notifications/progress"', b'"notifications/message"')


def read_line(line: bytes) -> SessionMessage | None:
    """The message in a line; None if there is none."""
    if line.lstrip()[:1] != b"{":
        return None
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
    return bounded(SessionMessage(message))


def bounded(message: SessionMessage) -> SessionMessage:
    """The message, with no more parts of a result than can be looked at."""
    if isinstance(message.message, JSONRPCResponse):
        blocks: Any = message.message.result.get("content")
        if isinstance(blocks, list) and len(cast("Sequence[object]", blocks)) > _MOST_BLOCKS:
            del blocks[_MOST_BLOCKS:]
    return message


def refusal_of(line: TooLong, longest: int) -> SessionMessage | None:
    """What the client is told instead of an answer that is too large; None if it cannot be told whose answer it was."""
    found = _ID_FIRST.search(line.head) or _ID_LAST.search(line.tail)
    if not found:
        return None
    word = found.group(1).decode(errors="replace")
    return error_message(word.strip('"') if word.startswith('"') else int(word), TOO_LARGE, too_large(longest))


def error_message(request_id: RequestId, code: int, text: str) -> SessionMessage:
    """An answer to a request that says that it failed."""
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=text)))


def too_large(longest: int) -> str:
    """What is said of an answer over the limit."""
    return f"it answered with more than {longest / 1_048_576:g} MiB"


class NoiseGuard:
    """Lets so many notices of progress and log lines through in a second, and no more; it does not parse them."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._looked = time.monotonic()

    def refuses(self, line: bytes) -> bool:
        """Whether the line is one notice too many."""
        head = line[:256]
        if not any(noise in head for noise in _NOISE):
            return False
        now = time.monotonic()
        self._left = min(self._per_second, self._left + (now - self._looked) * self._per_second)
        self._looked = now
        if self._left < 1:
            return True
        self._left -= 1
        return False
