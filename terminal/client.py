"""One session over its socket: connect, send, interrupt, resume. Nothing here prints."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from terminal.backoff import Backoff
from terminal.errors import Lost, Refused
from terminal.service import Position, is_on_this_machine

Event = Mapping[str, Any]
"""A frame of the service; its `type` tells what else is in it."""

_REFUSALS = {
    4400: "The service does not understand that session id",
    4401: "The service does not know you, or not any more: put another API key into COLLOQUY_API_KEY",
    4403: "The service does not take connections from here",
    4404: "There is no such session: leave out --session to begin a new one",
    4408: "The service asks who you are: put an API key into COLLOQUY_API_KEY",
    4429: "You have too many connections to the service: close some of them, or wait a little",
}
_TOO_BIG = {1009, 4413}
_LARGEST_FRAME = 16 * 2**20
_GREETING_SECONDS = 15.0
_CLOSING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Away:
    """The connection was lost; the next step is to try again after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Differs:
    """What was delivered of this run's reply is not the text that is stored: read that over REST."""

    run_id: str


Happening = Event | Away | Differs


@dataclass(slots=True)
class _Question:
    """What we wait for an answer to: our message, or a run that was there before us (then without a frame)."""

    client_message_id: str | None = None
    frame: str | None = None
    run_id: str | None = None
    is_to_stop: bool = False
    is_over: bool = False


class ChatClient:
    """What happens in a session after `position`, each thing once, while connections and services come and go.

    Use it as a context manager; `async for` or `anext` give the happenings and do all the connecting.
    `fields` go into every message (`persona_id`, `model`, `connection_id`).
    Iterating raises `Refused` when the service will never take us, `Lost` when it stays away.
    """

    def __init__(
        self,
        address: str,
        session_id: str,
        position: Position,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._address = address
        self._session_id = session_id
        self._position = position
        self._fields = fields or {}
        self._headers = headers or {}
        self._backoff = backoff or Backoff()
        self._socket: ClientConnection | None = None
        self._active_run: str | None = None
        self._has_attached = False
        self._retry_at = 0.0
        self._asked_to_wait = 0.0
        self._question: _Question | None = None
        self._texts: dict[str, Any] = {}
        """A running digest for each reply that is being delivered."""
        self._held_back: Happening | None = None
        """Where one frame makes two things happen, the second."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()

    def __aiter__(self) -> Self:
        return self

    # --- what the person wants -------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether more is to be taken before the next `send`: the first connection, or a reply until its end."""
        is_answered = self._question is None or self._question.is_over
        return not (self._has_attached and is_answered and self._held_back is None)

    @property
    def can_stop(self) -> bool:
        """Whether a reply is awaited that was not asked to stop yet."""
        return self._question is not None and not self._question.is_over and not self._question.is_to_stop

    def is_ours(self, run_id: object) -> bool:
        """Whether that is the run that is, or was last, waited for."""
        return self._question is not None and self._question.run_id == run_id

    async def send(self, content: str) -> None:
        """Ask for a reply. What cannot be sent now is sent when the service is back, and arrives once."""
        id = str(uuid4())
        frame = json.dumps({"type": "message", "content": content, "client_message_id": id, **self._fields})
        self._question = _Question(id, frame)
        self._backoff.reset()
        await self._push(frame)

    async def interrupt(self) -> None:
        """Stop the reply, as soon as the service has begun it."""
        if self._question and self.can_stop:
            self._question.is_to_stop = True
            await self._stop(self._question)

    async def decide(self, tool_call_id: str, *, approve: bool, remember: bool) -> None:
        """Say whether a call of a tool may be made."""
        decision = "approve" if approve else "reject"
        frame = {"type": "approve", "tool_call_id": tool_call_id, "decision": decision, "remember": remember}
        await self._push(json.dumps(frame))

    # --- what happens ----------------------------------------------------------------------------------------------

    async def __anext__(self) -> Happening:
        if self._held_back:
            happening, self._held_back = self._held_back, None
            return happening
        try:
            if self._socket is None:
                return await self._attach()
            return await self._take(_parse(await self._socket.recv()))
        except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake) as error:
            await self._drop()
            return self._explain(error)

    async def _attach(self) -> Event:
        """Connect after the position that was reached, and say again what was not acknowledged."""
        await asyncio.sleep(max(0.0, self._retry_at - asyncio.get_running_loop().time()))
        async with asyncio.timeout(_GREETING_SECONDS):
            self._socket = await connect(
                self._uri(),
                additional_headers=self._headers,
                compression=None,
                proxy=None if is_on_this_machine(self._address) else True,
                max_size=_LARGEST_FRAME,
                close_timeout=_CLOSING_SECONDS,
            )
            greeting = _parse(await self._socket.recv())
        if greeting["type"] != "session_start" or greeting.get("protocol") != 1:
            raise Refused(f"What answers at {self._address} speaks another protocol than this client.")
        self._active_run = greeting.get("active_run")
        if self._question is None and self._active_run and not self._has_attached:
            self._question = _Question(run_id=self._active_run)
        self._has_attached = True
        await self._repeat()
        return greeting

    def _uri(self) -> str:
        base = self._address.replace("http", "ws", 1)
        return f"{base}/ws/chat/{self._session_id}?after={self._position.seq}&epoch={self._position.epoch}"

    async def _repeat(self) -> None:
        question = self._question
        if question is None or question.is_over:
            return
        if question.run_id is None and question.frame is not None:
            # It may have arrived before: the service then knows the client_message_id and does not run it twice.
            await self._push(question.frame)
        if question.is_to_stop:
            await self._stop(question)

    async def _take(self, event: Event) -> Happening:
        # Only now, and not with the greeting: something in between may break the connection at every attempt.
        self._backoff.reset()
        if event["type"] not in ("session_start", "resync") and event.get("seq") is not None:
            self._position = Position(max(self._position.seq, event["seq"]), self._position.epoch)
        match event:
            case {"type": "resync", "seq": int(seq), "epoch": str(epoch)}:
                self._position = Position(seq, epoch)
                self._texts.clear()
                return self._lose_thread(event)
            case {"type": "message_accepted", "run_id": str(run_id), "client_message_id": str(id)}:
                await self._accepted(run_id, id)
            case {"type": "assistant_start", "run_id": str(run_id)}:
                self._texts[run_id] = hashlib.sha256()
            case {"type": "text_delta", "run_id": str(run_id), "delta": str(delta)}:
                self._texts.setdefault(run_id, hashlib.sha256()).update(delta.encode())
            case {"type": "assistant_end", "run_id": str(run_id), "text_sha256": str(digest)}:
                return self._ended(event, run_id, digest)
            case {"type": "error", "code": str(code)} if event.get("run_id") is None:
                self._refused(code)
            case {"type": "server_shutdown", "reconnect_after_ms": int(ms)}:
                self._asked_to_wait = ms / 1000
            case _:
                pass
        return event

    async def _accepted(self, run_id: str, client_message_id: str) -> None:
        question = self._question
        if question and question.client_message_id == client_message_id:
            question.run_id = run_id
            if question.is_to_stop:
                await self._stop(question)

    def _ended(self, event: Event, run_id: str, digest: str) -> Happening:
        if self.is_ours(run_id) and self._question:
            self._question.is_over = True
        if self._texts.pop(run_id, hashlib.sha256()).hexdigest() == digest:
            return event
        self._held_back = event
        return Differs(run_id)

    def _refused(self, code: str) -> None:
        """An error about one of our frames. Of those only a message waits for an answer, and only one."""
        question = self._question
        is_about_the_message = question and question.frame and question.run_id is None
        # A service that is going down takes no messages, but the next one will: it is said again there.
        if question and is_about_the_message and code not in ("nothing_running", "shutting_down"):
            question.is_over = True

    def _lose_thread(self, event: Event) -> Happening:
        """The past is gone, and with it perhaps the end that we wait for."""
        question = self._question
        if question is None or question.is_over or question.run_id in (None, self._active_run):
            return event  # what is not acknowledged was said again, and an active run is told from its beginning
        question.is_over = True
        assert question.run_id is not None
        self._held_back = Differs(question.run_id)
        return event

    # --- the connection --------------------------------------------------------------------------------------------

    async def _stop(self, question: _Question) -> None:
        # Until the message is acknowledged nobody knows its run, and without a name another one could be hit.
        if question.run_id is not None:
            await self._push(json.dumps({"type": "interrupt", "run_id": question.run_id}))

    async def _push(self, frame: str) -> None:
        if self._socket is None:
            return
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            return  # whoever reads notices too, connects, and repeats it

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _explain(self, error: Exception) -> Happening:
        """A last word for what cannot be mended; otherwise the time of the next attempt."""
        match error:
            case ConnectionClosed(rcvd=close) if close and close.code in _REFUSALS:
                raise Refused(f"{_REFUSALS[close.code]} ({close.reason or close.code}).") from error
            case ConnectionClosed(rcvd=close) if close and close.code in _TOO_BIG and self._unacknowledged:
                self._unacknowledged.is_over = True
                return _TOO_LONG
            case InvalidStatus(response=response) if response.status_code < 500:
                raise Refused(f"The service refused the connection: HTTP {response.status_code}.") from error
            case _:
                return self._away(error)

    @property
    def _unacknowledged(self) -> _Question | None:
        question = self._question
        return question if question and not question.is_over and question.run_id is None else None

    def _away(self, error: Exception) -> Away:
        seconds = self._backoff.next(at_least=self._asked_to_wait)
        self._asked_to_wait = 0.0
        if seconds is None:
            raise Lost(f"The service at {self._address} went away and did not come back.") from error
        self._retry_at = asyncio.get_running_loop().time() + seconds
        return Away(seconds)


_TOO_LONG: Event = {
    "type": "error",
    "code": "frame_too_big",
    "message": "The message is longer than the service takes.",
    "whose": "caller",
    "retryable": False,
}


def _parse(frame: str | bytes) -> Event:
    try:
        event: Any = json.loads(frame)
    except ValueError:
        event = None
    match event:
        case {"type": str()}:
            return event
        case _:
            raise Refused("The service sent something that is not in the protocol.")
