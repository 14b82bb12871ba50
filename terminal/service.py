"""What the client asks over REST."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from terminal.errors import NotRunning, Refused, UnknownCaller

_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a session's journal: what comes after it is still to be shown."""

    seq: int
    epoch: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One entry of the history."""

    id: str
    run_id: str | None
    role: str
    content: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """As the service tells it."""
        return cls(body["id"], body["run_id"], body["role"], body["content"])


@dataclass(frozen=True, slots=True)
class History:
    """The newest messages, oldest first. The events after `position` tell what is not here."""

    messages: list[StoredMessage]
    position: Position
    is_whole: bool


class Service:
    """A running Colloquy. Every method raises `NotRunning`, `Refused` and `UnknownCaller`."""

    def __init__(self, address: str, http: httpx2.AsyncClient, headers: Mapping[str, str]) -> None:
        self.address = address
        self.headers = headers
        """What shows who asks, over REST and on sockets."""
        self._http = http

    @classmethod
    @asynccontextmanager
    async def at(cls, address: str, *, key: str | None = None) -> AsyncGenerator[Self, None]:
        """The service at `address`, such as http://127.0.0.1:8000; where it has accounts, `key` is an API key."""
        trusts_proxies = not is_on_this_machine(address)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(
            base_url=address, timeout=_SECONDS, trust_env=trusts_proxies, headers=headers
        ) as http:
            yield cls(address, http, headers)

    async def new_session(self, fields: Mapping[str, str]) -> str:
        """Begin a session with these of its fields; its id."""
        session: str = (await self._ask("POST", "/api/sessions", json=dict(fields)))["id"]
        return session

    async def history(self, session_id: str, *, limit: int = 100) -> History:
        """The newest `limit` messages of a session."""
        page = await self._ask("GET", f"/api/sessions/{session_id}/messages", params={"limit": limit})
        messages = [StoredMessage.of(item) for item in reversed(page["items"])]
        return History(messages, Position(page["seq"], page["epoch"]), page["next_cursor"] is None)

    async def reply(self, session_id: str, run_id: str) -> str | None:
        """The stored text of a run's reply; None if there is none."""
        history = await self.history(session_id)
        replies = (one.content for one in history.messages if one.run_id == run_id and one.role == "assistant")
        return next(replies, None)

    async def persona_id(self, name_or_id: str) -> str:
        """The id of the persona with that id or name."""
        cursor: dict[str, str] = {}
        while True:
            page = await self._ask("GET", "/api/personas", params={"limit": 100, **cursor})
            for persona in page["items"]:
                if name_or_id.casefold() in {str(persona[key]).casefold() for key in ("id", "name", "slug")}:
                    found: str = persona["id"]
                    return found
            if page["next_cursor"] is None:
                raise Refused(f"There is no persona {name_or_id!r}.")
            cursor = {"cursor": page["next_cursor"]}

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, **request)
        except httpx2.TransportError as error:
            raise NotRunning(self.address) from error
        try:
            body: dict[str, Any] = response.json()
        except ValueError:
            body = {}
        if response.status_code == 401:
            raise UnknownCaller(self.address)
        if response.is_error:
            raise Refused(str(body.get("detail") or f"The service refused: HTTP {response.status_code}."))
        if not body:
            raise Refused(f"What answers at {self.address} is not Colloquy.")
        return body


def is_on_this_machine(address: str) -> bool:
    """Whether no proxy can stand between us and the service."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
