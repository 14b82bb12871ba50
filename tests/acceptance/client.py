"""A client of one session, which checks with every event that nothing is missing and nothing comes twice."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.processes import Service

Event = dict[str, Any]

_TRY_AGAIN = 1013
_LONG = 40.0
"""Far more than anything here takes on a machine that has other things to do."""


class Client:
    """Keeps what it was shown, and comes back to where it was."""

    def __init__(self, session_id: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers` say who it is, where somebody asks."""
        self.session_id = session_id
        self._headers = headers or {}
        self.events: list[Event] = []
        """Events of the journal, in order."""
        self.frames: list[str] = []
        """The same as they came."""
        self.asides: list[Event] = []
        """Frames that concern this connection only."""
        self.resumed: list[float] = []
        """Seconds from each attempt to come back until the first event."""
        self.epoch: str | None = None
        self.close_code: int | None = None
        self._socket: ClientConnection | None = None
        self._connecting = 0.0

    @property
    def position(self) -> int:
        """The newest event that was seen."""
        return self.events[-1]["seq"] if self.events else 0

    async def connect(self, service: Service) -> None:
        """Begin with everything kept, or go on after what was seen."""
        address = service.address.replace("http", "ws", 1)
        query = f"after={self.position}" + (f"&epoch={self.epoch}" if self.epoch else "")
        self._connecting = time.monotonic()
        start = await self._start_of(f"{address}/ws/chat/{self.session_id}?{query}")
        assert start["type"] == "session_start"
        assert start["replayed_from"] == self.position, "the past that was seen is not there any more"
        assert self.epoch in (None, start["epoch"])
        self.epoch = start["epoch"]

    async def _start_of(self, address: str) -> Event:
        """The first frame, as soon as the service does not ask any more to come back later."""
        async with asyncio.timeout(_LONG):
            while True:
                self._socket = await connect(
                    address, open_timeout=_LONG, max_queue=None, additional_headers=self._headers
                )
                try:
                    return json.loads(await self._socket.recv())
                except ConnectionClosed as closed:
                    if closed.rcvd is None or closed.rcvd.code != _TRY_AGAIN:
                        raise

    async def next(self) -> Event:
        """The next frame."""
        frame = await self.socket.recv()
        assert isinstance(frame, str)
        event: Event = json.loads(frame)
        if "seq" not in event:
            self.asides.append(event)
            return event
        assert event["seq"] == self.position + 1, f"event {event['seq']} came after {self.position}"
        if self._connecting:
            self.resumed.append(time.monotonic() - self._connecting)
            self._connecting = 0.0
        self.events.append(event)
        self.frames.append(frame)
        return event

    async def until(self, *types: str, run_id: str | None = None, count: int = 1, within: float = _LONG) -> Event:
        """The `count`-th frame from now on that has one of those types, and that run if one is given."""
        try:
            async with asyncio.timeout(within):
                while True:
                    event = await self.next()
                    count -= event["type"] in types and run_id in (None, event.get("run_id"))
                    if not count:
                        return event
        except TimeoutError:
            seen = [f"{event['seq']} {event['type']} of {event.get('run_id')}" for event in self.events[-25:]]
            asides = [event["type"] for event in self.asides[-5:]]
            raise AssertionError(f"no {types} within {within} s, only {seen} and {asides}") from None

    async def read_on(self) -> None:
        """Take what comes until the connection ends, which is then closed here too."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        await self.leave()
        self.close_code = self.socket.close_code

    async def say(self, content: str, message_id: str | None = None, **more: Any) -> None:
        """Send a message."""
        identity = {"client_message_id": message_id} if message_id else {}
        await self.send({"type": "message", "content": content, **identity, **more})

    async def ask(self, content: str, message_id: str | None = None, **more: Any) -> str:
        """Send a message and return the id of its run."""
        await self.say(content, message_id, **more)
        return (await self.until("message_accepted"))["run_id"]

    async def insist(self, service: Service, content: str, message_id: str, **more: Any) -> str:
        """Send until the message is known to be taken, as a careful client does, and read its reply to the end.

        Returns the run. Whatever breaks in between is mended by coming back.
        """
        async with asyncio.timeout(_LONG):
            while True:
                try:
                    if (run_id := self.accepted(message_id)) is None:
                        await self.say(content, message_id, **more)
                        await self._answered(message_id)
                    elif self.has_end(run_id):
                        return run_id
                    else:
                        await self.until("assistant_end", run_id=run_id)
                except ConnectionClosed:
                    await self.come_back(service)

    async def come_back(self, service: Service) -> None:
        """Connect again, however often the service must refuse because its database is away."""
        async with asyncio.timeout(_LONG):
            while True:
                try:
                    await self.connect(service)
                except ConnectionClosed:
                    await asyncio.sleep(0.05)  # as the service asks of its clients
                else:
                    return

    async def _answered(self, message_id: str) -> None:
        """Return when the message is accepted, or refused with an error that says that trying again is right."""
        while self.accepted(message_id) is None:
            event = await self.next()
            if event["type"] == "error" and "seq" not in event:
                assert event["retryable"], event
                return

    async def interrupt(self, run_id: str | None = None) -> None:
        """Stop what runs, or that run."""
        await self.send({"type": "interrupt"} | ({"run_id": run_id} if run_id else {}))

    async def send(self, frame: Event) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps(frame))

    async def leave(self) -> None:
        """Close in good order."""
        if self._socket is not None:
            await self._socket.close()

    async def cut(self) -> None:
        """Break the connection as a dead network does: without a word."""
        self.socket.transport.abort()
        await self.socket.wait_closed()

    @property
    def socket(self) -> ClientConnection:
        """The newest connection."""
        assert self._socket is not None, "never connected"
        return self._socket

    def of_run(self, run_id: str) -> list[Event]:
        """What was seen of a run."""
        return [event for event in self.events if event.get("run_id") == run_id]

    def accepted(self, message_id: str) -> str | None:
        """The run of a message that was seen to be accepted."""
        accepted = (event for event in self.events if event["type"] == "message_accepted")
        return next((event["run_id"] for event in accepted if event["client_message_id"] == message_id), None)

    def has_end(self, run_id: str) -> bool:
        """Whether the end of the reply was seen."""
        return any(event["type"] == "assistant_end" for event in self.of_run(run_id))

    def text(self, run_id: str) -> str:
        """The text that was shown in a run."""
        return "".join(event["delta"] for event in self.of_run(run_id) if event["type"] == "text_delta")

    def end(self, run_id: str) -> Event:
        """The run's one `assistant_end`, which must agree with what was shown."""
        (end,) = (event for event in self.of_run(run_id) if event["type"] == "assistant_end")
        assert end["text_sha256"] == sha256(self.text(run_id).encode()).hexdigest()
        return end


@asynccontextmanager
async def connected(service: Service, session_id: str | None = None) -> AsyncGenerator[Client, None]:
    """A client of a session, a new one if none is given, that has left at the end."""
    client = Client(session_id or await service.new_session())
    await client.connect(service)
    try:
        yield client
    finally:
        await client.leave()


@asynccontextmanager
async def crowd(service: Service, size: int) -> AsyncGenerator[Sequence[Client], None]:
    """That many clients, each of a new session of its own."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(service)) for _ in range(size)]
