"""The stored shapes: one frozen dataclass per table."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from db.ids import MessageId, PersonaId, RunId, SessionId, UserId

RunState = Literal["queued", "running", "finished"]
MessageRole = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True)
class PersonaRecord:
    """A named prompt template with its model settings."""

    id: PersonaId
    owner_id: UserId
    name: str
    slug: str
    description: str
    template: str
    mode: Literal["reactive", "autonomous"]
    first_message: str | None
    connection: str | None
    model: str | None
    controls: dict[str, Any]
    is_active: bool
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A chat thread, with the newest position of its journal and the run that is active in it."""

    id: SessionId
    owner_id: UserId
    persona_id: PersonaId | None
    title: str | None
    pinned: bool
    connection: str | None
    model: str | None
    controls: dict[str, Any]
    metadata: dict[str, Any]
    active_leaf_id: MessageId | None
    version: int
    created_at: datetime
    updated_at: datetime
    last_seq: int
    active_run_id: RunId | None


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """One entry of the full history. `parts` keep the true order of text, thinking and tool calls of a reply."""

    id: MessageId
    session_id: SessionId
    parent_id: MessageId | None
    run_id: RunId | None
    role: MessageRole
    content: str
    parts: list[dict[str, Any]]
    token_count: int
    finish_reason: str | None
    provider: str | None
    model: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The work that one user message causes."""

    id: RunId
    session_id: SessionId
    owner_id: UserId
    client_message_id: str
    user_message_id: MessageId
    reply_message_id: MessageId | None
    state: RunState
    request: dict[str, Any]
    interrupt_by: str | None
    finish_reason: str | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    timings: dict[str, Any] | None
    first_seq: int
    last_seq: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One committed event. `body` is the JSON object of everything but its type and position."""

    seq: int
    run_id: RunId | None
    type: str
    body: str


@dataclass(frozen=True, slots=True)
class JournalHead:
    """Where a session's journal stands: positions up to `kept_after` are gone."""

    last_seq: int
    kept_after: int
    active_run_id: RunId | None
    active_first_seq: int | None
