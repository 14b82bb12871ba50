"""The connections: messages and interrupts go to the chat service, events come back."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, assert_never
from uuid import UUID

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.websockets import WebSocket

from db.errors import DatabaseError
from db.ids import FileId, MessageId, PersonaId, RunId, SessionId, UserId
from services.accounts.caller import Caller
from services.accounts.rights import RightsInUse
from services.chat import Attachment, ChatService
from services.errors import ColloquyError, InsufficientScope, InvalidRequest, NotFound, TooManyRequests, Unavailable
from services.inbox import Send
from services.questions import Regenerate
from services.runs.feed import JournalGone, PastIsGone
from services.telemetry.circumstances import circumstances
from services.tools.approvals import ApprovalService, Word
from websocket.connection import (
    GOING_AWAY,
    NOT_AUTHENTICATED,
    NOT_FOUND,
    SLOW_READER,
    TOO_MANY,
    TRY_AGAIN,
    Connection,
    accept,
    refuse,
)
from websocket.frames import (
    CLIENT_FRAME,
    ApproveFrame,
    AuthenticateFrame,
    ClientFrame,
    ErrorFrame,
    InterruptFrame,
    MessageFrame,
    PingFrame,
    PongFrame,
    RegenerateFrame,
    ResyncFrame,
    ServerShutdownFrame,
    SessionStartFrame,
)

T = TypeVar("T")

_REVOKED = "what you have shown is not valid any more: sign in again"
_GOODBYE_SECONDS = 3.0
"""For all clients together to hear that the service goes: more than the one that does not read is given."""


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Numbers of the operator, per user and socket."""

    connections_per_user: int
    frames_per_minute: int
    backlog_characters: int


class ConnectionManager:
    """Every open socket of this replica."""

    def __init__(
        self, chat: ChatService, approvals: ApprovalService, rights: RightsInUse, limits: SocketLimits
    ) -> None:
        self._chat = chat
        self._approvals = approvals
        self._rights = rights
        self._limits = limits
        self._connections: set[Connection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._per_user: Counter[UserId] = Counter()
        self._frames: dict[UserId, FrameBudget] = {}

    @property
    def backlog_characters(self) -> int:
        """How much may wait for a client that does not read."""
        return self._limits.backlog_characters

    @property
    def open_connections(self) -> int:
        """How many sockets are open."""
        return len(self._connections)

    async def serve(
        self, socket: WebSocket, caller: Caller, session_id: SessionId, *, after: int | None, epoch: UUID | None
    ) -> None:
        """Serve one session's socket until it closes, or the caller's right is taken away."""
        circumstances().session_id = session_id
        with self.admit(socket, caller) as connection:
            if connection is None:
                await refuse(socket, TOO_MANY, "too many connections")
                return
            try:
                async with self._chat.attach(caller.user_id, session_id, after=after, epoch=epoch) as attachment:
                    await accept(socket)
                    channel = SessionChannel(
                        connection, self._chat, self._approvals, caller, session_id, self.budget(caller.user_id)
                    )
                    await channel.run(attachment, backlog_characters=self._limits.backlog_characters)
            except NotFound:
                await refuse(socket, NOT_FOUND, "no such session")
            except DatabaseError:
                await refuse(socket, TRY_AGAIN, "the database cannot be reached just now")

    @contextmanager
    def admit(self, socket: WebSocket, caller: Caller) -> Generator[Connection | None, None, None]:
        """A connection for this socket while it is open; None if the user has too many."""
        owner_id = caller.user_id
        circumstances().credential = caller.credential
        if self._per_user[owner_id] >= self._limits.connections_per_user:
            yield None
            return
        connection = Connection(socket, backlog_characters=self._limits.backlog_characters)
        self._connections.add(connection)
        self._nobody.clear()
        self._per_user[owner_id] += 1
        try:
            with self._rights.used(caller, lambda: connection.close(NOT_AUTHENTICATED, _REVOKED)):
                yield connection
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._nobody.set()
            self._per_user[owner_id] -= 1
            if not self._per_user[owner_id]:
                del self._per_user[owner_id]
                # Who comes back goes on with what was left: hanging up must not be a way to send more.
                if self.budget(owner_id).is_whole:
                    del self._frames[owner_id]

    def budget(self, owner_id: UserId) -> "FrameBudget":
        """How many frames the user may still send, on all sockets together."""
        return self._frames.setdefault(owner_id, FrameBudget(self._limits.frames_per_minute))

    async def shut_down(self, reconnect_after_ms: int) -> None:
        """Tell every client that the service goes, and close; return when all have been told, or cannot be."""
        frame = ServerShutdownFrame(reconnect_after_ms=reconnect_after_ms).model_dump_json()
        for connection in tuple(self._connections):
            if connection.knows_shutdown:
                connection.push(frame)
            connection.close(GOING_AWAY, "the service is going down")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._nobody.wait()


class FrameBudget:
    """So many frames a minute; those over it are refused, and a flood of refused ones is cut off."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at = time.monotonic()

    def spend(self) -> None:
        """Count one frame; raises `TooManyRequests` when none is left."""
        now = time.monotonic()
        self._left = min(self._per_minute, self._left + (now - self._at) * self._per_minute / 60) - 1
        self._at = now
        if self._left < 0:
            raise TooManyRequests("Too many frames.", retry_after=max(1, round(-self._left * 60 / self._per_minute)))

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is spent by now: a new one would be the same."""
        return self._left + (time.monotonic() - self._at) * self._per_minute / 60 >= self._per_minute

    @property
    def is_flooded(self) -> bool:
        """Whether a whole minute's frames were sent over the limit."""
        return self._left < -self._per_minute


class SessionChannel:
    """One socket on one session."""

    def __init__(
        self,
        connection: Connection,
        chat: ChatService,
        approvals: ApprovalService,
        caller: Caller,
        session_id: SessionId,
        budget: FrameBudget,
    ) -> None:
        self._connection = connection
        self._chat = chat
        self._approvals = approvals
        self._caller = caller
        self._owner_id = caller.user_id
        self._session_id = session_id
        self._budget = budget
        self._shown_from = 0
        self._may_introduce_itself = caller.credential is None

    async def run(self, attachment: Attachment, *, backlog_characters: int) -> None:
        """Say where the session stands, then relay events out and frames in."""
        attachment.reader.limit_backlog(backlog_characters, self._drop_slow_reader)
        self._shown_from = attachment.position
        start = SessionStartFrame(
            session_id=self._session_id,
            connection_id=self._connection.id,
            epoch=self._chat.epoch,
            seq=attachment.newest,
            active_run=attachment.active_run,
            replayed_from=attachment.replayed_from,
        )
        self._connection.push(start.model_dump_json(exclude={"replayed_from"} if start.replayed_from is None else None))
        if attachment.resync:
            frame = {"reason": attachment.resync, "seq": attachment.position, "epoch": self._chat.epoch}
            self._push(ResyncFrame.model_validate(frame))
        await self._connection.run(self._relay(attachment), self._read())

    async def _relay(self, attachment: Attachment) -> None:
        try:
            while True:
                for frame in await attachment.reader.next():
                    await self._connection.send(frame.text)
        except JournalGone:
            self._connection.close(NOT_FOUND, "the session was deleted")
        except (DatabaseError, PastIsGone):
            # The socket is only a reader: the client comes back to where it was, or is told that it cannot.
            self._connection.close(TRY_AGAIN, "your events cannot be read just now")

    async def _read(self) -> None:
        while True:
            received = await self._connection.receive()
            try:
                await self._handle(parse_frame(received, CLIENT_FRAME, self._budget))
            except ColloquyError as error:
                self._push(error_frame(error))
            except DatabaseError:
                self._push(error_frame(Unavailable()))
            self._may_introduce_itself = False
            if self._budget.is_flooded:
                self._connection.close(TOO_MANY, "too many frames")

    async def _handle(self, frame: ClientFrame) -> None:
        match frame:
            case InterruptFrame():
                # Counted but never refused: whoever wants to stop must be able to.
                spend_quietly(self._budget)
                check_may_chat(self._caller)
                await self._chat.interrupt(self._owner_id, self._session_id, frame.run_id and RunId(frame.run_id))
            case MessageFrame() | RegenerateFrame():
                self._budget.spend()
                check_may_chat(self._caller)
                await self._send(_wanted(frame, self._caller))
            case ApproveFrame():
                self._budget.spend()
                check_may_chat(self._caller)
                word = Word(frame.decision, frame.arguments, frame.remember)
                await self._approvals.decide(self._owner_id, self._session_id, frame.tool_call_id, word)
            case PingFrame():
                self._budget.spend()
                self._push(PongFrame(nonce=frame.nonce))
            case AuthenticateFrame():
                self._budget.spend()
                if not self._may_introduce_itself:
                    raise InvalidRequest("authenticate is taken only as the first frame.", field="type")
            case _:
                assert_never(frame)

    async def _send(self, wanted: Send | Regenerate) -> None:
        accepted = await self._chat.send(self._owner_id, self._session_id, wanted)
        if not accepted.is_new and accepted.run.first_seq <= self._shown_from:
            # A retry of something that this socket was not shown: without an answer the client would wait for ever.
            for event in await self._chat.replay(accepted.run):
                if event.seq <= self._shown_from:
                    self._connection.push(event.text)

    def _drop_slow_reader(self) -> None:
        self._connection.close(SLOW_READER, "you do not read your events")

    def _push(self, frame: BaseModel) -> None:
        self._connection.push(frame.model_dump_json(exclude_none=True))


def _wanted(frame: MessageFrame | RegenerateFrame, caller: Caller) -> Send | Regenerate:
    """The frame in the words of the chat service."""
    persona_id = frame.persona_id and PersonaId(frame.persona_id)
    who_answers = (persona_id, frame.connection_id, frame.model, frame.controls)
    match frame:
        case MessageFrame():
            replaces = frame.replaces and MessageId(frame.replaces)
            files = [FileId(file_id) for file_id in frame.attachments]
            return Send(
                frame.contents,
                frame.client_message_id,
                frame.when_busy,
                *who_answers,
                replaces,
                attachments=files,
                credential_id=caller.credential_id,
            )
        case RegenerateFrame():
            sent_as = frame.client_message_id
            return Regenerate(MessageId(frame.message_id), sent_as, frame.when_busy, *who_answers, caller.credential_id)


def check_may_chat(caller: Caller) -> None:
    """Raises `InsufficientScope` for whoever may only look on."""
    if not caller.may("chat"):
        raise InsufficientScope("What you have shown allows to read here and no more.", scope="chat")


def spend_quietly(budget: FrameBudget) -> None:
    """Count a frame that is let through in any case."""
    try:
        budget.spend()
    except TooManyRequests:
        return


def parse_frame(received: str | bytes, frames: TypeAdapter[T], budget: FrameBudget) -> T:
    """The client's frame; raises `InvalidFrame` with the field that is wrong.

    Counts what cannot be read, and raises `TooManyRequests`; the others are counted by whoever carries them out.
    """
    fault: InvalidFrame = BinaryNotSupported()
    if isinstance(received, str):
        try:
            return frames.validate_json(received)
        except ValidationError as error:
            fault = invalid_frame(error)
    budget.spend()
    raise fault


class InvalidFrame(InvalidRequest):
    """The frame is not one of the protocol's."""

    code = "invalid_frame"


class BinaryNotSupported(InvalidFrame):
    """Send text frames: binary ones are not understood."""

    code = "binary_not_supported"


def invalid_frame(error: ValidationError) -> InvalidFrame:
    """The first fault of a frame in words, with the field that it is about."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidFrame(f"The frame is not JSON. {first['msg']}.", reason="json_invalid")
    path = [str(part) for part in first["loc"]]
    field = ".".join(path[1:] if len(path) > 1 else path) or "type"
    return InvalidFrame(f"{field}: {first['msg']}", field=field, reason=first["type"])


def error_frame(error: ColloquyError) -> ErrorFrame:
    """The frame that tells of a fault of the client's frame; it has no position in the journal."""
    return ErrorFrame(
        code=error.code,
        message=error.message,
        whose=error.whose,
        retryable=error.retryable,
        resend_safe=error.resend_safe,
        details=orjson.loads(orjson.dumps(error.details, default=str)),
    )
