"""The faults of the protocol's client in our words: what happened, and whether the tool may have done its work."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, cast

import anyio
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, PARSE_ERROR, REQUEST_TIMEOUT
from pydantic import ValidationError

from services.errors import ToolError, ToolFailed, ToolTimedOut, ToolUnavailable
from services.mcp.faults import ConnectionEnded, NothingDone, unusable
from services.mcp.wire import GARBLED, TOO_LARGE, UNREACHABLE
from services.providers.text import clean_text

_LONGEST: Final = 500
_STREAM_BROKEN: Final = "SSE stream failed"


@contextmanager
def translated(server: str) -> Generator[None]:
    """Raises `ToolError` for what goes wrong inside, in a call to `server`."""
    try:
        yield
    except MCPError as error:
        raise _fault(server, error) from error
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
        raise ConnectionEnded(_ended(server), server=server) from error
    except (ValidationError, ValueError, TypeError, KeyError, RuntimeError, RecursionError) as error:
        raise ToolFailed(unusable(server, GARBLED), server=server) from error


def reason_of(error: BaseException) -> str:
    """Why a connection ended, in words for people."""
    match _innermost(error):
        case ToolUnavailable(message=words):
            return words
        case MCPError() as said:
            return _words(said)
        case ValidationError():
            return GARBLED
        case other:
            return f"{type(other).__name__}: {other}"[:_LONGEST]


def _fault(server: str, error: MCPError) -> ToolError:
    said = _words(error)
    match error.code:
        case code if code == REQUEST_TIMEOUT:
            return ToolTimedOut(server=server)
        case code if code == CONNECTION_CLOSED and said.startswith(_STREAM_BROKEN):
            return ToolFailed(unusable(server, "its answer is too large, or broken"), server=server)
        case code if code == CONNECTION_CLOSED:
            return ConnectionEnded(_ended(server), server=server)
        case code if code == INVALID_REQUEST and said == "Session terminated":
            return NothingDone(unusable(server, "it does not know our conversation any more"), server=server)
        case code if code == UNREACHABLE:
            return ConnectionEnded(unusable(server, said), server=server)
        case code if code == TOO_LARGE:
            return ToolFailed(unusable(server, said), server=server)
        case code if code == PARSE_ERROR:
            return ToolFailed(unusable(server, GARBLED), server=server)
        case _:
            return ToolFailed(f"The tool server {server} refused the call: {said}", server=server)


def _ended(server: str) -> str:
    return f"The tool server {server} ended during the call."


def _words(error: MCPError) -> str:
    return clean_text(error.message)[:_LONGEST]


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
