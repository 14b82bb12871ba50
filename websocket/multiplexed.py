"""The `/ws/chat` dialect: one socket, many chats. A pure mapping over the same events."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, assert_never
from uuid import UUID

import orjson
from starlette.websockets import WebSocket

from db.errors import DatabaseError
from db.ids import PersonaId, RunId, SessionId
from db.records import RunRecord
from services.accounts.caller import Caller
from services.chat import ChatService
from services.errors import CallerError, ColloquyError, InvalidRequest, NotFound, NothingRunning, Unavailable
from services.inbox import Send
from services.runs.feed import Frame, JournalGone, PastIsGone
from services.sessions import SessionService
from websocket.connection import SLOW_READER, TOO_MANY, Connection, accept, refuse
from websocket.dialect import (
    DIALECT_FRAME,
    CancelFrame,
    ChatData,
    ChatFrame,
    DialectAuthenticate,
    DialectPing,
    MultiplexedClientFrame,
)
from websocket.manager import (
    ConnectionManager,
    FrameBudget,
    check_may_chat,
    error_frame,
    parse_frame,
    spend_quietly,
)

_CHATS_PER_SOCKET = 64


class ProviderHostNotAllowed(CallerError):
    """A chat cannot name a provider's address or key: choose a connection by its name."""

    code = "provider_host_not_allowed"


def in_dialect(event: Mapping[str, Any], conversation_id: UUID) -> tuple[str, dict[str, Any]] | None:
    """Type and data of the frame that tells of an event; None for an event that this dialect does not have."""
    chat: dict[str, Any] = {"chat_session_id": event["run_id"], "seq": event["seq"]}
    match event["type"]:
        case "message_accepted":
            return "chat_session_start", chat | {"conversation_id": str(conversation_id)}
        case "text_delta" | "refusal_delta":
            return "chunk", chat | {"content": event["delta"], "thinking": None, "done": False}
        case "thinking_delta":
            return "chunk", chat | {"content": "", "thinking": event["delta"], "done": False}
        case "stage_update" | "post_response_complete" | "error" as type:
            return type, chat | _own_fields(event)
        case "tool_start" | "approval_required" | "tool_done":
            return "stage_update", chat | _stage_of_tool(event)
        case "interrupted":
            return "cancelled", chat | _own_fields(event)
        case "assistant_end" if event["finish_reason"] not in ("interrupted", "error"):
            return "done", chat | _own_fields(event)
        case _:
            return None


def _stage_of_tool(event: Mapping[str, Any]) -> dict[str, Any]:
    """A call of a tool as a step of the third stage, the reply: the dialect has no word of its own for it."""
    match event["type"]:
        case "tool_start":
            status, message = "started", f"Calling {event['name']}"
        case "approval_required":
            status, message = "started", f"Waiting for somebody to agree to a call of {event['name']}"
        case _:
            status, message = "finished", f"The call has {_ENDED.get(event['status'], event['status'])}"
    return {"stage": 3, "name": "tool", "status": status, "message": message, "tool_call_id": event["tool_call_id"]}


_ENDED = {"completed": "ended", "interrupted": "been stopped", "rejected": "been rejected"}


def is_last(event: Mapping[str, Any]) -> bool:
    """Whether nothing more will come of the event's run."""
    if event["type"] == "assistant_end":
        return event["finish_reason"] in ("interrupted", "error")
    if event["type"] == "interrupted":
        return event["phase"] == "post_response"
    return event["type"] == "post_response_complete"


def _own_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("type", "seq", "run_id", "at")}


class MultiplexedChannel:
    """One socket on any number of the owner's conversations."""

    def __init__(
        self,
        connection: Connection,
        chat: ChatService,
        sessions: SessionService,
        caller: Caller,
        budget: FrameBudget,
        backlog_characters: int,
    ) -> None:
        self._connection = connection
        self._connection.knows_shutdown = False
        self._chat = chat
        self._sessions = sessions
        self._caller = caller
        self._owner_id = caller.user_id
        self._may_introduce_itself = caller.credential is None
        self._budget = budget
        self._backlog_characters = backlog_characters
        self._followers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Relay until the socket closes; the chats go on without it."""
        self._push("session_start", {"session_id": str(self._connection.id)})
        try:
            await self._connection.run(self._read())
        finally:
            for task in self._followers:
                task.cancel()
            await asyncio.gather(*self._followers, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            received = await self._connection.receive()
            try:
                await self._handle(parse_frame(received, DIALECT_FRAME, self._budget))
            except ColloquyError as error:
                self._push_error(error)
            except DatabaseError:
                self._push_error(Unavailable())
            self._may_introduce_itself = False
            if self._budget.is_flooded:
                self._connection.close(TOO_MANY, "too many frames")

    async def _handle(self, frame: MultiplexedClientFrame) -> None:
        match frame:
            case CancelFrame():
                spend_quietly(self._budget)
                check_may_chat(self._caller)
                await self._cancel(RunId(frame.session_id))
            case ChatFrame():
                self._budget.spend()
                check_may_chat(self._caller)
                await self._start(frame.data)
            case DialectPing():
                self._budget.spend()
                self._push("pong", frame.data or {})
            case DialectAuthenticate():
                self._budget.spend()
                if not self._may_introduce_itself:
                    raise InvalidRequest("authenticate is taken only as the first frame.", field="type")
            case _:
                assert_never(frame)

    async def _start(self, data: ChatData) -> None:
        if len(self._followers) >= _CHATS_PER_SOCKET:
            raise InvalidRequest(f"At most {_CHATS_PER_SOCKET} chats run on one socket.")
        # Before a conversation is opened for it.
        send = await self._chat.checked(self._owner_id, _as_send(data, self._caller))
        session_id = await self._conversation(data)
        accepted = await self._chat.send(self._owner_id, session_id, send)
        task = asyncio.create_task(self._follow(accepted.run))
        self._followers.add(task)
        task.add_done_callback(self._followers.discard)

    async def _conversation(self, data: ChatData) -> SessionId:
        if data.conversation_id is not None:
            return SessionId(data.conversation_id)
        persona_id = data.persona_id and PersonaId(data.persona_id)
        return (await self._sessions.create(self._owner_id, persona_id=persona_id)).id

    async def _cancel(self, run_id: RunId) -> None:
        session_id = await self._chat.session_of(self._owner_id, run_id)
        if session_id is None:
            raise NotFound("There is no chat with that id.", field="session_id")
        try:
            await self._chat.interrupt(self._owner_id, session_id, run_id)
        except NothingRunning:
            return  # it ended while the client asked; its last frames say how

    async def _follow(self, run: RunRecord) -> None:
        try:
            async with self._events(run) as events:
                async for event in events:
                    if frame := in_dialect(event, run.session_id):
                        self._push(*frame)
                    await self._connection.room()
        except (NotFound, JournalGone):
            self._push_error(NotFound("The conversation was deleted."), chat_session_id=str(run.id))
        except (DatabaseError, PastIsGone):
            self._push_error(Unavailable(), chat_session_id=str(run.id))

    @asynccontextmanager
    async def _events(self, run: RunRecord) -> AsyncGenerator[AsyncGenerator[dict[str, Any], None], None]:
        async with self._chat.attach(self._owner_id, run.session_id, after=run.first_seq - 1) as attachment:
            reader = attachment.reader
            reader.limit_backlog(self._backlog_characters, self._drop_slow_reader)

            async def events() -> AsyncGenerator[dict[str, Any], None]:
                while True:
                    for frame in await reader.next():
                        if frame.run_id == run.id:
                            event = _decoded(frame)
                            yield event
                            if is_last(event):
                                return

            stream = events()
            try:
                yield stream
            finally:
                await stream.aclose()

    def _drop_slow_reader(self) -> None:
        self._connection.close(SLOW_READER, "you do not read your events")

    def _push(self, type: str, data: Mapping[str, Any]) -> None:
        self._connection.push(orjson.dumps({"type": type, "data": data}, default=str).decode())

    def _push_error(self, error: ColloquyError, **more: str) -> None:
        fields = error_frame(error).model_dump(exclude_none=True, exclude={"type"})
        self._push("error", fields | more)


async def serve_multiplexed(
    manager: ConnectionManager, chat: ChatService, sessions: SessionService, socket: WebSocket, caller: Caller
) -> None:
    """Serve one socket of this dialect until it closes, or the caller's right is taken away."""
    with manager.admit(socket, caller) as connection:
        if connection is None:
            await refuse(socket, TOO_MANY, "too many connections")
            return
        await accept(socket)
        budget = manager.budget(caller.user_id)
        channel = MultiplexedChannel(connection, chat, sessions, caller, budget, manager.backlog_characters)
        await channel.run()


def _as_send(data: ChatData, caller: Caller) -> Send:
    settings = dict(data.provider_settings)
    model = settings.pop("model", None)
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("model must be a string.", field="provider_settings.model")
    connection = data.provider
    for name in ("connection", "connection_id"):
        # More exact than `provider`, which may be no more than a kind.
        connection = settings.pop(name, None) or connection
    if connection is not None and not isinstance(connection, str):
        raise InvalidRequest("A connection is a name or an id.", field="provider_settings.connection")
    if settings:
        # Anything else could be an address or a key in some disguise: a client must not point the server anywhere.
        raise ProviderHostNotAllowed(refused=sorted(settings), known=["model", "connection", "connection_id"])
    controls = {key: value for key, value in data.chat_controls.items() if key != "stream"}
    persona_id = data.persona_id and PersonaId(data.persona_id)
    return Send(
        [data.message],
        persona_id=persona_id,
        connection=connection,
        model=model,
        controls=controls,
        credential_id=caller.credential_id,
    )


def _decoded(frame: Frame) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(frame.text)
    return event
