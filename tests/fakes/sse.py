"""Server-sent events and error bodies as OpenAI words them."""

import json
from typing import Any

from tests.fakes.script import Status

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any], name: str = "") -> bytes:
    """One server-sent event. Not ASCII only: real servers send UTF-8."""
    head = f"event: {name}\n" if name else ""
    # Lone surrogates cannot be UTF-8; a server can only send them escaped.
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        text = json.dumps(data, separators=(",", ":")).encode()
    return head.encode() + b"data: " + text + b"\n\n"


def refusal_body(status: Status) -> Any:
    """The body of an HTTP error."""
    error = {"message": status.message, "type": "invalid_request_error", "param": None, "code": status.code or None}
    return {"error": error}
