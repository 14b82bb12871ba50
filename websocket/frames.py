"""What crosses a session's socket: the one truth for validation, documents and tests."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

MAX_TURNS = 20
"""User turns in one `message` frame."""
MAX_ATTACHMENTS = 20
"""Files that come with one message."""


class Frame(BaseModel):
    """A JSON object in one text frame."""

    model_config = ConfigDict(extra="forbid")


# --- from the client ------------------------------------------------------------------------------------------------


class Proof(Frame):
    """What shows who somebody is: a ticket or a token."""

    ticket: str | None = Field(
        None, max_length=4096, description="From `POST /api/auth/ws-ticket`, for this socket; good once and soon."
    )
    token: str | None = Field(None, max_length=4096, description="An access token or an API key, without `Bearer`.")


class AuthenticateFrame(Proof):
    """Who I am, by a `ticket` or a `token`; only as the first frame, where the handshake had no `Authorization`.

    Not needed where there are no accounts.
    """

    type: Literal["authenticate"]


class TurnPart(Frame):
    """One of several user turns."""

    content: str


class MessageFrame(Frame):
    """Please answer this. Either `content`, or `messages`: several turns that get one reply."""

    type: Literal["message"]
    content: str | None = None
    messages: list[TurnPart] | None = Field(None, min_length=1, max_length=MAX_TURNS)
    attachments: list[UUID] = Field(
        default_factory=list[UUID], max_length=MAX_ATTACHMENTS, description="Files of the session that come with it."
    )
    client_message_id: str | None = Field(None, min_length=1, max_length=200)
    persona_id: UUID | None = None
    connection_id: str | None = Field(None, min_length=1, max_length=200)
    model: str | None = Field(None, min_length=1, max_length=200)
    controls: dict[str, Any] = Field(default_factory=dict[str, Any])
    when_busy: Literal["interrupt", "queue", "reject", "steer"] = "interrupt"
    replaces: UUID | None = Field(None, description="Your message that this one is an edit of; it stays in its branch.")

    @model_validator(mode="after")
    def _has_one_form(self) -> "MessageFrame":
        if (self.content is None) == (self.messages is None):
            raise ValueError("give either content or messages")
        return self

    @property
    def contents(self) -> list[str]:
        """The user turns, oldest first."""
        return [turn.content for turn in self.messages] if self.messages else [self.content or ""]


class RegenerateFrame(Frame):
    """Please answer once more: a new reply beside the old one, which stays.

    `message_id` is a reply or a message of yours. What is left out is as it was when that was sent.
    """

    type: Literal["regenerate"]
    message_id: UUID
    client_message_id: str | None = Field(None, min_length=1, max_length=200)
    persona_id: UUID | None = None
    connection_id: str | None = Field(None, min_length=1, max_length=200)
    model: str | None = Field(None, min_length=1, max_length=200)
    controls: dict[str, Any] = Field(default_factory=dict[str, Any])
    when_busy: Literal["interrupt", "queue", "reject"] = "interrupt"


class InterruptFrame(Frame):
    """Stop the run, the active one if none is named."""

    type: Literal["interrupt"]
    run_id: UUID | None = None


class ApproveFrame(Frame):
    """Whether a call that waits in `approval_required` may be made, with other arguments if some are given.

    `remember` makes it the session's word for that tool: `approve` for calls to come, `reject` to keep it away.
    """

    type: Literal["approve"]
    tool_call_id: str = Field(min_length=1, max_length=200)
    decision: Literal["approve", "reject"]
    arguments: dict[str, Any] | None = None
    remember: bool = False


class PingFrame(Frame):
    """Are you there? Answered by `pong`."""

    type: Literal["ping"]
    nonce: str | int | None = Field(None)


ClientFrame = Annotated[
    AuthenticateFrame | MessageFrame | RegenerateFrame | InterruptFrame | ApproveFrame | PingFrame,
    Field(discriminator="type"),
]
CLIENT_FRAME: TypeAdapter[ClientFrame] = TypeAdapter(ClientFrame)


def read_proof(text: str) -> Proof | None:
    """What a first frame shows; None if it shows nothing. Raises `ValidationError`."""
    frame = CLIENT_FRAME.validate_json(text)
    return frame if isinstance(frame, AuthenticateFrame) else None


# --- to the client --------------------------------------------------------------------------------------------------


class ConnectionFrame(Frame):
    """Concerns this connection only: has no position in the journal."""


class SessionStartFrame(ConnectionFrame):
    """You are connected; events after `seq` will follow, those after `replayed_from` first if there were such."""

    type: Literal["session_start"] = "session_start"
    session_id: UUID
    connection_id: UUID
    protocol: Literal[1] = 1
    epoch: UUID
    seq: int
    active_run: UUID | None = None
    replayed_from: int | None = None


class ResyncFrame(ConnectionFrame):
    """The past that you asked for is gone: read the session over REST. Events after `seq` follow."""

    type: Literal["resync"] = "resync"
    reason: Literal["foreign_epoch", "position_unknown", "past_is_gone"]
    seq: int
    epoch: UUID


class PongFrame(ConnectionFrame):
    """I am here."""

    type: Literal["pong"] = "pong"
    nonce: str | int | None = None


class ServerShutdownFrame(ConnectionFrame):
    """The service goes down; come back after that many milliseconds. Running replies are not lost."""

    type: Literal["server_shutdown"] = "server_shutdown"
    reconnect_after_ms: int


class SessionEvent(Frame):
    """An event of the journal: `seq` counts from 1 in the session, without holes."""

    seq: int
    at: datetime


class RunEvent(SessionEvent):
    """An event of a run."""

    run_id: UUID


class MessageAcceptedFrame(RunEvent):
    """Your words are stored and will be answered, or old ones once more: the active branch ends with `message_id`.

    Of a run that is at work already: your words are to steer it. `message_taken` says that it has taken them; else a
    run of their own begins with this event once more.
    """

    type: Literal["message_accepted"]
    message_id: UUID
    client_message_id: str
    queued: bool


class MessageTakenFrame(RunEvent):
    """The run has taken a message that was accepted while it worked: its reply is to that one, too."""

    type: Literal["message_taken"]
    message_id: UUID


class StageUpdateFrame(RunEvent):
    """One of the five stages began or ended."""

    type: Literal["stage_update"]
    stage: int = Field(ge=1, le=5)
    name: str
    status: Literal["started", "finished"]
    message: str
    modules: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class ContextUsageFrame(RunEvent):
    """How full the model's window is, in tokens: estimates, raised by `factor` where the model's server counts more."""

    type: Literal["context_usage"]
    tokens: int
    limit: int
    threshold: int
    parts: dict[str, int]
    factor: float = 1.0


class ContextCompactedFrame(SessionEvent):
    """Older messages were replaced by a summary in what the model is given; the history keeps them.

    `before` and `after` are tokens (estimates). It belongs to a run if it had to happen before that run's reply.
    """

    type: Literal["context_compacted"]
    run_id: UUID | None = None
    before: int
    after: int
    summarized_messages: int


class AssistantStartFrame(RunEvent):
    """The model is being asked."""

    type: Literal["assistant_start"]
    message_id: UUID
    persona_id: UUID | None
    provider: str
    model: str


class TextDeltaFrame(RunEvent):
    """A piece of the reply."""

    type: Literal["text_delta"]
    delta: str


class ThinkingDeltaFrame(RunEvent):
    """A piece of the model's reasoning."""

    type: Literal["thinking_delta"]
    delta: str


class RefusalDeltaFrame(RunEvent):
    """A piece of the model's refusal."""

    type: Literal["refusal_delta"]
    delta: str


class ToolStartFrame(RunEvent):
    """A tool is being called."""

    type: Literal["tool_start"]
    tool_call_id: str
    name: str
    server: str | None
    arguments: str


class ToolProgressFrame(RunEvent):
    """How far a call has come, in the tool's own measure."""

    type: Literal["tool_progress"]
    tool_call_id: str
    progress: float
    total: float | None
    message: str


class ApprovalRequiredFrame(RunEvent):
    """Somebody has to say whether this call may be made: answer with `approve` before `expires_at`."""

    type: Literal["approval_required"]
    tool_call_id: str
    name: str
    server: str | None
    arguments: str
    reason: str
    expires_at: str


class ToolDoneFrame(RunEvent):
    """A tool call ended. Without a `tool_start` before it, nothing was done."""

    type: Literal["tool_done"]
    tool_call_id: str
    status: Literal["completed", "failed", "interrupted", "rejected"]
    result: str
    truncated: bool
    ms: int


class InterruptedFrame(RunEvent):
    """The run was stopped, `elapsed_ms` after somebody said so."""

    type: Literal["interrupted"]
    phase: Literal["composing", "waiting", "streaming", "tool", "post_response"]
    elapsed_ms: int
    by: str


class UsageCounts(Frame):
    """Tokens as the provider counted them; null where it did not tell."""

    input_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None


class AssistantEndFrame(RunEvent):
    """The reply is over and stored. Exactly one for each run; `message_id` is null if it never began."""

    type: Literal["assistant_end"]
    message_id: UUID | None
    finish_reason: Literal["stop", "length", "interrupted", "refusal", "max_turns", "error"]
    usage: UsageCounts
    timings: dict[str, int]
    text_sha256: str


class ErrorBody(Frame):
    """What went wrong, whose fault it is, and what can be done."""

    type: Literal["error"] = "error"
    code: str
    message: str
    whose: Literal["caller", "model", "provider", "server"]
    retryable: bool
    resend_safe: bool
    details: dict[str, Any] = Field(default_factory=dict[str, Any])


class ErrorFrame(ErrorBody):
    """Your frame could not be carried out (then there is no `seq`), or a run failed."""

    seq: int | None = None
    run_id: UUID | None = None
    at: datetime | None = None


class PostResponseCompleteFrame(RunEvent):
    """The work after the reply is done."""

    type: Literal["post_response_complete"]
    modules: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class SessionUpdatedFrame(SessionEvent):
    """Fields of the session changed; the changed ones stand here under their names."""

    model_config = ConfigDict(extra="allow")
    type: Literal["session_updated"]


ServerFrame = Annotated[
    SessionStartFrame
    | ResyncFrame
    | PongFrame
    | ServerShutdownFrame
    | MessageAcceptedFrame
    | MessageTakenFrame
    | StageUpdateFrame
    | ContextUsageFrame
    | ContextCompactedFrame
    | AssistantStartFrame
    | TextDeltaFrame
    | ThinkingDeltaFrame
    | RefusalDeltaFrame
    | ToolStartFrame
    | ToolProgressFrame
    | ApprovalRequiredFrame
    | ToolDoneFrame
    | InterruptedFrame
    | AssistantEndFrame
    | ErrorFrame
    | PostResponseCompleteFrame
    | SessionUpdatedFrame,
    Field(discriminator="type"),
]
SERVER_FRAME: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)
