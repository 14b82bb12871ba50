"""What crosses a socket of the `/ws/chat` dialect: the one truth for validation, documents and tests."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from websocket.frames import Proof


class Dialect(BaseModel):
    """An envelope of this dialect."""

    model_config = ConfigDict(extra="forbid")


class ChatData(Dialect):
    """What is asked, of whom."""

    message: str
    provider: str | None = None
    persona_id: UUID | None = None
    conversation_id: UUID | None = None
    provider_settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    chat_controls: dict[str, Any] = Field(default_factory=dict[str, Any])


class ChatFrame(Dialect):
    """Answer this; a chat that runs in the same conversation is cancelled."""

    type: Literal["chat"]
    data: ChatData


class CancelFrame(Dialect):
    """Stop the chat with that chat session id."""

    type: Literal["cancel"]
    session_id: UUID


class DialectAuthenticate(Dialect):
    """Who I am, by a `ticket` or a `token`; only as the first frame, where the handshake had no `Authorization`.

    Not needed where there are no accounts.
    """

    type: Literal["authenticate"]
    data: Proof


class DialectPing(Dialect):
    """Are you there?"""

    type: Literal["ping"]
    data: dict[str, Any] | None = None


MultiplexedClientFrame = Annotated[
    DialectAuthenticate | ChatFrame | CancelFrame | DialectPing, Field(discriminator="type")
]
DIALECT_FRAME: TypeAdapter[MultiplexedClientFrame] = TypeAdapter(MultiplexedClientFrame)


class ConnectionData(Dialect):
    """The id of this connection."""

    session_id: UUID


class DialectSessionStart(Dialect):
    """You are connected."""

    type: Literal["session_start"] = "session_start"
    data: ConnectionData


class ChatStartData(Dialect):
    """The chat's id, and the conversation that it belongs to."""

    chat_session_id: UUID
    conversation_id: UUID
    seq: int


class ChatSessionStart(Dialect):
    """Your message is stored and will be answered."""

    type: Literal["chat_session_start"] = "chat_session_start"
    data: ChatStartData


class ChatEventData(BaseModel):
    """Which chat this is about, and its position; the event's own fields beside them."""

    model_config = ConfigDict(extra="allow")
    chat_session_id: UUID
    seq: int


class ChunkData(Dialect):
    """A piece of the reply or of the model's reasoning."""

    chat_session_id: UUID
    seq: int
    content: str
    thinking: str | None
    done: bool


class Chunk(Dialect):
    """A piece of an answer."""

    type: Literal["chunk"] = "chunk"
    data: ChunkData


class ChatEvent(Dialect):
    """A stage began or ended, the reply is done, the work after it is done, or the chat was cancelled."""

    type: Literal["stage_update", "done", "post_response_complete", "cancelled"]
    data: ChatEventData


class DialectErrorData(BaseModel):
    """What went wrong; with `chat_session_id` and `seq` if a chat failed."""

    model_config = ConfigDict(extra="allow")
    code: str
    message: str


class DialectError(Dialect):
    """Your frame could not be carried out, or a chat failed."""

    type: Literal["error"] = "error"
    data: DialectErrorData


class DialectPong(Dialect):
    """I am here."""

    type: Literal["pong"] = "pong"
    data: dict[str, Any] = Field(default_factory=dict[str, Any])


MultiplexedServerFrame = Annotated[
    DialectSessionStart | ChatSessionStart | Chunk | ChatEvent | DialectError | DialectPong,
    Field(discriminator="type"),
]


def read_proof(text: str) -> Proof | None:
    """What a first frame of this dialect shows; None if it shows nothing. Raises `ValidationError`."""
    frame = DIALECT_FRAME.validate_json(text)
    return frame.data if isinstance(frame, DialectAuthenticate) else None
