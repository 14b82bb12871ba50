"""Who is at a socket: what is shown with the handshake, or else in the first frame.

Until that is known nothing is told, not even whether there is such a session, and little is spent: one frame of a few
kilobytes is taken, for a few seconds, on a bounded number of sockets.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from db.errors import DatabaseError
from db.ids import SessionId
from services.accounts.addresses import network_of
from services.accounts.authenticator import Authenticator
from services.accounts.caller import LOCAL_CALLER, Caller
from services.accounts.tickets import Tickets
from services.errors import NotAuthenticated, TooManyRequests
from websocket.connection import (
    FORBIDDEN,
    FRAME_TOO_BIG,
    MALFORMED,
    NOT_AUTHENTICATED,
    NOT_IN_TIME,
    TOO_MANY,
    TRY_AGAIN,
    refuse,
)
from websocket.frames import Proof

_FIRST_FRAME_CHARACTERS = 8_192
"""More than the longest token and ticket together."""

ReadProof = Callable[[str], Proof | None]
"""What a first frame shows; None if it shows nothing. Raises `ValidationError` if it is no frame."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """Numbers of the operator: how long, and how many sockets, may wait for somebody to say who they are."""

    seconds: float
    per_address: int
    in_all: int


class Refusal(Exception):
    """The socket is closed with that code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


class Door(Protocol):
    """Where sockets come in."""

    async def admit(self, socket: WebSocket, session_id: SessionId | None, read: ReadProof) -> Caller | None:
        """Who is at the socket of that session, or of many conversations; None if it was refused and is closed."""
        ...


class OpenDoor:
    """Where there are no accounts: whoever comes is the owner, and may say so or not."""

    async def admit(self, socket: WebSocket, session_id: SessionId | None, read: ReadProof) -> Caller | None:
        """The owner."""
        return LOCAL_CALLER


class GuardedDoor:
    """Where there are accounts."""

    def __init__(self, authenticator: Authenticator, tickets: Tickets, limits: DoorLimits) -> None:
        self._authenticator = authenticator
        self._tickets = tickets
        self._limits = limits
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many sockets have not said yet who is there."""
        return self._waiting.total()

    async def admit(self, socket: WebSocket, session_id: SessionId | None, read: ReadProof) -> Caller | None:
        """Who is at the socket of that session, or of many conversations; None if it was refused and is closed."""
        try:
            return await self._caller(socket, session_id, read)
        except Refusal as refusal:
            code, reason = refusal.code, refusal.reason
        except NotAuthenticated as error:
            code, reason = NOT_AUTHENTICATED, error.message
        except TooManyRequests as error:
            code, reason = TOO_MANY, error.message
        except DatabaseError:
            code, reason = TRY_AGAIN, "the database cannot be reached just now"
        except WebSocketDisconnect:
            return None
        with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):  # it may have gone meanwhile
            await refuse(socket, code, reason)
        return None

    async def _caller(self, socket: WebSocket, session_id: SessionId | None, read: ReadProof) -> Caller:
        shown = socket.headers.getlist("authorization")
        caller = await (self._by_header(shown) if shown else self._by_frame(socket, session_id, read))
        if not caller.may("read"):
            raise Refusal(FORBIDDEN, "what you have shown does not allow to read")
        return caller

    async def _by_header(self, headers: Sequence[str]) -> Caller:
        scheme, _, bearer = headers[0].partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer":
            raise NotAuthenticated("Authorization is: Bearer, and an access token or an API key.")
        return await self._authenticator.authenticate(bearer.strip())

    async def _by_frame(self, socket: WebSocket, session_id: SessionId | None, read: ReadProof) -> Caller:
        with self._place(socket):
            await socket.accept()
            try:
                async with asyncio.timeout(self._limits.seconds):
                    proof = _shown(await socket.receive(), read)
            except TimeoutError:
                raise Refusal(NOT_IN_TIME, "you have not said in time who you are") from None
            if proof.ticket is not None:
                return await self._tickets.redeem(proof.ticket, session_id)
            assert proof.token is not None, "something is shown"
            return await self._authenticator.authenticate(proof.token)

    @contextmanager
    def _place(self, socket: WebSocket) -> Generator[None, None, None]:
        """A place among those that have not said who they are; raises `Refusal` if there is none left."""
        address = network_of(socket.client.host if socket.client else "")
        if self._waiting[address] >= self._limits.per_address or self.waiting >= self._limits.in_all:
            raise Refusal(TOO_MANY, "too many sockets have not said who they are")
        self._waiting[address] += 1
        try:
            yield
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def _shown(message: Message, read: ReadProof) -> Proof:
    """What the first frame shows. Nothing of it is repeated to anybody: it may be a secret."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect
    text = message.get("text")
    if not isinstance(text, str):
        raise Refusal(MALFORMED, "send text frames: binary ones are not understood")
    if len(text) > _FIRST_FRAME_CHARACTERS:
        raise Refusal(FRAME_TOO_BIG, "the first frame says who you are, and no more")
    try:
        proof = read(text)
    except ValidationError:
        raise Refusal(MALFORMED, "the first frame is not one of the protocol's") from None
    if proof is not None and (proof.ticket is None) == (proof.token is None):
        raise Refusal(MALFORMED, "give either a ticket or a token")
    if proof is None:
        raise Refusal(NOT_AUTHENTICATED, "say who you are first: authenticate, with a ticket or a token")
    return proof
