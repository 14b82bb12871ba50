"""A client of the sockets that holds the service to its protocol: every frame is checked as it comes."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx2
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from websocket.dialect import MultiplexedServerFrame
from websocket.frames import SERVER_FRAME

PATIENCE = 10.0
_DIALECT_FRAME: TypeAdapter[MultiplexedServerFrame] = TypeAdapter(MultiplexedServerFrame)

Event = dict[str, Any]


class Socket:
    """One open socket. `seen` are all frames so far, oldest first."""

    def __init__(
        self,
        connection: ClientConnection,
        check: Callable[[str], object],
        mark: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.connection = connection
        self.seen: list[Event] = []
        self._check = check
        self._mark = mark

    async def send(self, type: str, **fields: Any) -> None:
        """Send a frame."""
        await self.connection.send(json.dumps({"type": type, **fields}))

    async def say(self, content: str, **fields: Any) -> None:
        """Send a message to be answered."""
        await self.send("message", content=content, **fields)

    async def next(self) -> Event:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            text = await self.connection.recv(decode=True)
        self._check(text)
        frame: Event = json.loads(text)
        self.seen.append(frame)
        return frame

    async def until(self, type: str, **fields: Any) -> list[Event]:
        """The frames that come up to and with the first one of that type with those fields."""
        frames: list[Event] = []
        try:
            while not frames or not _matches(frames[-1], {"type": type, **fields}):
                frames.append(await self.next())
        except (TimeoutError, ConnectionClosed) as error:
            raise AssertionError(f"no {type} {fields or ''} among {[_short(frame) for frame in frames]}") from error
        return frames

    async def expect(self, type: str, **fields: Any) -> Event:
        """The first frame of that type with those fields; what comes before it is passed over."""
        return (await self.until(type, **fields))[-1]

    async def reply(self, content: str, **fields: Any) -> list[Event]:
        """Send a message and return the events of its run, to the last one."""
        await self.say(content, **fields)
        return await self.run()

    async def run(self) -> list[Event]:
        """The events of the next run that begins, to its last one."""
        accepted = await self.expect("message_accepted")
        return [accepted, *await self.rest_of(accepted["run_id"])]

    async def rest_of(self, run_id: str) -> list[Event]:
        """The events of a run from here to its last one."""
        mine: list[Event] = []
        while not mine or not is_last(mine[-1]):
            frame = await self.next()
            if frame.get("run_id") == run_id:
                mine.append(frame)
        return mine

    async def refused(self, code: str) -> Event:
        """The error that this connection is told next, which must have that code."""
        error = await self.expect("error")
        assert error["code"] == code, error
        assert "seq" not in error, "a bad frame must leave no trace in the journal"
        return error

    async def answered(self) -> list[Event]:
        """What this connection is told up to the answer to a ping sent now."""
        nonce = str(uuid4())
        await self.send("ping", nonce=nonce)
        return (await self.until("pong", nonce=nonce))[:-1]

    async def catch_up(self) -> list[Event]:
        """Everything that the journal told until now: up to an event that is made now, which is not among it."""
        assert self._mark is not None
        title = f"mark {uuid4()}"
        await self._mark(title)
        return [event for event in await self.until("session_updated", title=title) if not _is_mark(event)]

    async def closed(self) -> tuple[int, str]:
        """Code and reason with which the service closes; frames before that are passed over."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.next()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


class DialectSocket(Socket):
    """A socket of the `/ws/chat` dialect."""

    async def chat(self, message: str, **data: Any) -> Event:
        """Send a chat and return the `data` of its `chat_session_start`."""
        await self.send("chat", data={"message": message, **data})
        return (await self.expect("chat_session_start"))["data"]

    async def of_chat(self, chat_id: str, *, last: Sequence[str] = ("post_response_complete",)) -> list[Event]:
        """The frames of a chat up to one of the types `last`."""
        mine: list[Event] = []
        while not mine or mine[-1]["type"] not in last:
            frame = await self.next()
            if frame.get("data", {}).get("chat_session_id") == chat_id:
                mine.append(frame)
        return mine

    async def answered(self) -> list[Event]:
        """What this connection is told up to the answer to a ping sent now."""
        data = {"nonce": str(uuid4())}
        await self.send("ping", data=data)
        return (await self.until("pong", data=data))[:-1]


class Client:
    """A user's program: sessions over REST, chats over sockets. What it opened ends with it."""

    def __init__(self, base_url: str, stack: AsyncExitStack, http: httpx2.AsyncClient) -> None:
        self.base_url = base_url
        self.http = http
        self._stack = stack
        self._sessions: list[str] = []

    @property
    def origin(self) -> str:
        """The service's own origin."""
        return self.base_url

    async def session(self, *, forget: bool = True, **fields: Any) -> str:
        """A new session's id; it is deleted with the client unless the service will be gone by then."""
        created = await self.http.post("/api/sessions", json=fields)
        assert created.status_code == 201, created.text
        session_id: str = created.json()["id"]
        if forget:
            self._sessions.append(session_id)
        return session_id

    async def persona(self, **fields: Any) -> str:
        """A new persona's id."""
        created = await self.http.post("/api/personas", json=fields)
        assert created.status_code == 201, created.text
        return created.json()["id"]

    async def connect(self, path: str, **options: Any) -> ClientConnection:
        """A raw connection."""
        address = self.base_url.replace("http", "ws", 1) + path
        settings: dict[str, Any] = {"max_size": None, "ping_interval": None, "compression": None, "proxy": None}
        return await self._stack.enter_async_context(connect(address, **settings | options))

    async def open(self, session_id: str, query: str = "", **options: Any) -> Socket:
        """A session's socket, after its `session_start`, which is `seen[0]`."""

        async def mark(title: str) -> None:
            changed = await self.http.patch(f"/api/sessions/{session_id}", json={"title": title})
            assert changed.status_code == 200, changed.text

        raw = await self.connect(f"/ws/chat/{session_id}{query and '?'}{query}", **options)
        socket = Socket(raw, SERVER_FRAME.validate_json, mark)
        await socket.expect("session_start")
        return socket

    async def knock(self, path: str, **options: Any) -> Socket:
        """A socket of which nothing was read yet."""
        return Socket(await self.connect(path, **options), SERVER_FRAME.validate_json)

    async def multiplexed(self, **options: Any) -> DialectSocket:
        """A socket of the dialect, after its `session_start`."""
        socket = DialectSocket(await self.connect("/ws/chat", **options), _DIALECT_FRAME.validate_json)
        await socket.expect("session_start")
        return socket

    async def history(self, session_id: str) -> list[dict[str, Any]]:
        """The messages of a session, oldest first."""
        answer = await self.http.get(f"/api/sessions/{session_id}/messages", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"][::-1]

    async def said(self, session_id: str) -> list[tuple[str, str]]:
        """Role and content of the messages of a session, oldest first."""
        return [(message["role"], message["content"]) for message in await self.history(session_id)]

    async def newest_seq(self, session_id: str) -> int:
        """Where a session's journal stands."""
        return (await self.http.get(f"/api/sessions/{session_id}")).json()["seq"]

    async def forget(self) -> None:
        """Delete the sessions made here, which also stops what runs in them."""
        for session_id in self._sessions:
            await self.http.delete(f"/api/sessions/{session_id}")


@asynccontextmanager
async def client_of(base_url: str) -> AsyncGenerator[Client, None]:
    """A client of the service at `base_url`."""
    async with (
        httpx2.AsyncClient(base_url=base_url, timeout=20) as http,
        AsyncExitStack() as stack,
    ):
        client = Client(base_url, stack, http)
        try:
            yield client
        finally:
            await client.forget()


def is_last(event: Event) -> bool:
    """Whether nothing of the event's run may follow."""
    ended = event["type"] == "assistant_end" and event["finish_reason"] in ("interrupted", "error")
    return ended or event["type"] == "post_response_complete"


def text_of(events: Sequence[Event], type: str = "text_delta") -> str:
    """The deltas of that type, joined."""
    return "".join(event["delta"] for event in events if event["type"] == type)


def types_of(events: Sequence[Event]) -> list[str]:
    """Their types, with neighbouring deltas of one type counted as one: how they are cut is nobody's promise."""
    types = [event["type"] for event in events]
    return [type for i, type in enumerate(types) if not type.endswith("_delta") or types[i - 1 : i] != [type]]


def one(events: Sequence[Event], type: str) -> Event:
    """The only event of that type."""
    found = [event for event in events if event["type"] == type]
    assert len(found) == 1, f"{len(found)} {type} in {types_of(events)}"
    return found[0]


def assert_gapless(events: Sequence[Event]) -> None:
    """Every position once, in order."""
    seqs = [event["seq"] for event in events if "seq" in event and "protocol" not in event]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def sha256(text: str) -> str:
    """As in `text_sha256`."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_uuid(text: object) -> bool:
    """Whether `text` is a UUID in its usual form."""
    return isinstance(text, str) and str(UUID(text)) == text


def _matches(frame: Event, fields: Mapping[str, Any]) -> bool:
    return all(frame.get(name) == value for name, value in fields.items())


def _is_mark(event: Event) -> bool:
    return event["type"] == "session_updated" and str(event.get("title", "")).startswith("mark ")


def _short(frame: Event) -> str:
    return json.dumps(frame)[:200]
