"""Faults of tool servers that the pool treats differently from others."""

from services.errors import ToolUnavailable


class ConnectionEnded(ToolUnavailable):
    """The tool server ended during the call; nobody knows whether the tool has done its work."""


class NothingDone(ConnectionEnded):
    """The tool server was gone before the call reached it, so the tool has done nothing."""


def unusable(server: str, reason: str) -> str:
    """The sentence for a server that cannot be used."""
    return f"The tool server {server} cannot be used: {reason.rstrip('.')}."
