"""Reading what the service answers."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

_MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "code",
    "errors",
    "request_id",
    "retryable",
    "resend_safe",
    "details",
}


def problem(response: httpx2.Response, status: int, code: str, at: str | None = None) -> dict[str, Any]:
    """The body of a problem of that status and code; with `at`, one of its errors points there."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == _MEMBERS
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"]
    if at is not None:
        assert at in [error["pointer"] for error in body["errors"]], body
    return body


@dataclass(frozen=True)
class Sent:
    """One server-sent event."""

    id: int | None
    name: str | None
    data: dict[str, Any]


@dataclass
class Stream:
    """An open stream of server-sent events."""

    response: httpx2.Response
    _events: AsyncIterator[Sent]

    async def next(self) -> Sent:
        """The next event."""
        return await anext(self._events)

    async def until(self, type: str) -> list[Sent]:
        """All events up to the next one of that type."""
        events: list[Sent] = []
        async for event in self._events:
            events.append(event)
            if event.data["type"] == type:
                return events
        raise AssertionError(f"the stream ended without {type}: {[event.data['type'] for event in events]}")

    async def rest(self) -> list[Sent]:
        """All events to the end of the stream."""
        return [event async for event in self._events]


@asynccontextmanager
async def events(http: httpx2.AsyncClient, method: str, path: str, **options: Any) -> AsyncGenerator[Stream, None]:
    """Open a stream."""
    async with http.stream(method, path, **options) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response, _parsed(response.aiter_lines()))


async def _parsed(lines: AsyncIterator[str]) -> AsyncGenerator[Sent, None]:
    fields: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            yield Sent(int(fields["id"]) if "id" in fields else None, fields.get("event"), json.loads(fields["data"]))
            fields = {}


def text_of(sent: list[Sent]) -> str:
    """The reply's text in those events."""
    return "".join(event.data["delta"] for event in sent if event.data["type"] == "text_delta")
