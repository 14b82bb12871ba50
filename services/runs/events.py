"""Everything that can happen in a run or session: the union of the journal's events.

The fields are what a client receives, next to `type`, `seq`, `run_id` and `at`, which the journal adds.
`websocket/frames.py` describes the same for the wire; a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, NamedTuple
from uuid import UUID

import orjson

from db.stores.events import NewEvent
from services.errors import ColloquyError, Whose

FinishReason = Literal["stop", "length", "interrupted", "refusal", "max_turns", "error"]
Phase = Literal["composing", "waiting", "streaming", "tool", "post_response"]


NO_USAGE: Mapping[str, int | None] = {"input_tokens": None, "output_tokens": None, "thinking_tokens": None}
"""What is said of usage where the provider told nothing."""


class Stage(NamedTuple):
    """What a stage is called by programs and for people."""

    name: str
    message: str


STAGES: Mapping[int, Stage] = {
    1: Stage("compose", "Composing the prompt"),
    2: Stage("compose_with_ai", "Asking modules that use a model"),
    4: Stage("after", "Finishing up"),
    5: Stage("after_with_ai", "Reflecting on the reply"),
}
"""The third stage is the reply itself: its events are `assistant_start` to `assistant_end`."""


@dataclass(frozen=True, slots=True)
class MessageAccepted:
    """The user's words are stored and will be answered; the session's active branch ends with them now.

    Told of a run that is at work already: they are to steer it. If it cannot take them any more (`message_taken` says
    that it has), a run of their own begins with this event once more.
    """

    type: ClassVar[str] = "message_accepted"
    message_id: UUID
    client_message_id: str
    queued: bool


@dataclass(frozen=True, slots=True)
class MessageTaken:
    """The run has taken a message of the user that was accepted while it worked: its reply is to that one, too."""

    type: ClassVar[str] = "message_taken"
    message_id: UUID


@dataclass(frozen=True, slots=True)
class StageUpdate:
    """One of the five stages of a run began or ended."""

    type: ClassVar[str] = "stage_update"
    stage: int
    name: str
    status: Literal["started", "finished"]
    message: str
    modules: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def began(cls, stage: int) -> "StageUpdate":
        """The stage begins."""
        return cls(stage, STAGES[stage].name, "started", STAGES[stage].message)

    @classmethod
    def ended(cls, stage: int, modules: tuple[Mapping[str, Any], ...] = ()) -> "StageUpdate":
        """The stage is over; `modules` tell what came of each that had a part in it."""
        return cls(stage, STAGES[stage].name, "finished", STAGES[stage].message, modules)


@dataclass(frozen=True, slots=True)
class ContextUsage:
    """How full the model's window is; counts are estimates. `parts` maps what fills it to tokens.

    `factor` is how much the counts were raised because the model's server has counted more than we did.
    """

    type: ClassVar[str] = "context_usage"
    tokens: int
    limit: int
    threshold: int
    parts: Mapping[str, int]
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ContextCompacted:
    """Older messages were replaced in the context: `before` and `after` are tokens of the window (estimates)."""

    type: ClassVar[str] = "context_compacted"
    before: int
    after: int
    summarized_messages: int


@dataclass(frozen=True, slots=True)
class AssistantStart:
    """The model is being asked; what follows belongs to the reply `message_id`."""

    type: ClassVar[str] = "assistant_start"
    message_id: UUID
    persona_id: UUID | None
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the reply."""

    type: ClassVar[str] = "text_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's reasoning."""

    type: ClassVar[str] = "thinking_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the model's refusal."""

    type: ClassVar[str] = "refusal_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """The agent calls a tool; `arguments` is the JSON text that the model wrote."""

    type: ClassVar[str] = "tool_start"
    tool_call_id: str
    name: str
    server: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a call has come, in the tool's own measure; `total` is None where nobody knows."""

    type: ClassVar[str] = "tool_progress"
    tool_call_id: str
    progress: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class ApprovalRequired:
    """The run waits until somebody says whether this call may be made; `expires_at` is when it is rejected unasked."""

    type: ClassVar[str] = "approval_required"
    tool_call_id: str
    name: str
    server: str | None
    arguments: str
    reason: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class ToolDone:
    """A tool call ended; `result` is a preview. Without a `tool_start` before it, nothing was done."""

    type: ClassVar[str] = "tool_done"
    tool_call_id: str
    status: Literal["completed", "failed", "interrupted", "rejected"]
    result: str
    truncated: bool
    ms: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody stopped the run. `elapsed_ms` runs from their word until the work had stopped."""

    type: ClassVar[str] = "interrupted"
    phase: Phase
    elapsed_ms: int
    by: str


@dataclass(frozen=True, slots=True)
class AssistantEnd:
    """The reply is over and stored; `text_sha256` is over the UTF-8 bytes of its whole text."""

    type: ClassVar[str] = "assistant_end"
    message_id: UUID | None
    finish_reason: FinishReason
    usage: Mapping[str, int | None]
    timings: Mapping[str, int]
    text_sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong, with whose fault it is and what can be done."""

    type: ClassVar[str] = "error"
    code: str
    message: str
    whose: Whose
    retryable: bool
    resend_safe: bool
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, error: ColloquyError) -> "Failed":
        """The event that tells of `error`."""
        return cls(error.code, error.message, error.whose, error.retryable, error.resend_safe, error.details)


@dataclass(frozen=True, slots=True)
class PostResponseComplete:
    """The work after the reply is done."""

    type: ClassVar[str] = "post_response_complete"
    modules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """Fields of the session changed; only the changed ones are here."""

    type: ClassVar[str] = "session_updated"
    changes: Mapping[str, Any]


Delta = TextDelta | ThinkingDelta | RefusalDelta
RunEvent = (
    MessageAccepted
    | MessageTaken
    | StageUpdate
    | ContextUsage
    | ContextCompacted
    | AssistantStart
    | Delta
    | ToolStart
    | ToolProgress
    | ApprovalRequired
    | ToolDone
    | Interrupted
    | AssistantEnd
    | Failed
    | PostResponseComplete
)
Event = RunEvent | SessionUpdated


def encode(event: Event, run_id: UUID | None, at: str) -> NewEvent:
    """The event as the journal stores it."""
    return encode_under(event, run_prefix(run_id), at)


def run_prefix(run_id: UUID | None) -> str:
    """How the body of every event of a run begins; worth keeping for a run, as a UUID is slow to write out."""
    return "" if run_id is None else f'"run_id":"{run_id}",'


def encode_under(event: Event, prefix: str, at: str) -> NewEvent:
    """The event as the journal stores it, with the prefix of its run."""
    if isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
        # Nearly all events are deltas: written by hand, as this is the hot path.
        return NewEvent(event.type, f'{{{prefix}"at":"{at}","delta":{orjson.dumps(event.delta).decode()}}}')
    fields: Any = event.changes if isinstance(event, SessionUpdated) else event
    return NewEvent(event.type, f'{{{prefix}"at":"{at}",{orjson.dumps(fields, default=str).decode()[1:]}')


def frame_text(type: str, seq: int, body: str) -> str:
    """What a client receives: the stored body with its type and position put in front."""
    return f'{{"type":"{type}","seq":{seq},{body[1:]}'


def timestamp() -> str:
    """Now, as the journal writes times (ISO 8601, UTC, milliseconds)."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
