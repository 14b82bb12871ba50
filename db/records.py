"""The stored shapes: one frozen dataclass per table."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from db.ids import (
    ApiKeyId,
    ConnectionId,
    FileId,
    InvitationId,
    MemoryId,
    MessageId,
    ModuleId,
    PersonaId,
    RunId,
    SessionId,
    SignInId,
    SummaryId,
    UserId,
)

RunState = Literal["queued", "running", "finished"]
MessageRole = Literal["user", "assistant", "system"]
PersonaMode = Literal["reactive", "autonomous"]
ConnectionKind = Literal["openai", "azure", "ollama"]
ConnectionApi = Literal["chat_completions", "responses"]
ModuleType = Literal["simple", "advanced"]
ExecutionContext = Literal["IMMEDIATE", "POST_RESPONSE", "ON_DEMAND"]
ResultState = Literal["spoke", "failed"]
SummaryKind = Literal["summary", "marker"]
TextState = Literal["none", "waiting", "ready", "failed"]
CallState = Literal["waiting", "approved", "running", "completed", "failed", "rejected", "interrupted"]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """Somebody to whom things belong. The owner of a service without accounts has no e-mail."""

    id: UserId
    email: str | None
    display_name: str
    is_admin: bool
    timezone: str | None
    default_persona_id: PersonaId | None
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SignInRecord:
    """One sign-in of a user: what a device got for a password, and keeps as long as it comes back in time."""

    id: SignInId
    user_id: UserId
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """Lets one person register; with an e-mail only the one who has that address."""

    id: InvitationId
    email: str | None
    created_by: UserId | None
    created_at: datetime
    expires_at: datetime
    used_by: UserId | None
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class PersonaRecord:
    """A named prompt template with its model settings.

    `module_ids` are the modules attached to it, in order; `refers_to` are the names that its template refers to.
    """

    id: PersonaId
    owner_id: UserId
    name: str
    slug: str
    description: str
    template: str
    mode: PersonaMode
    schedule: dict[str, Any] | None
    first_message: str | None
    image: str | None
    connection: str | None
    model: str | None
    controls: dict[str, Any]
    tools: dict[str, Any]
    module_ids: list[ModuleId]
    refers_to: list[str]
    is_active: bool
    is_default: bool
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """A connection to a model server that somebody saved.

    `former_names` lead to it where nothing else has that name now, the newest first. `sealed_key` is what
    `services/connections/vault.py` makes of the key, `key_id` names the key of the ring that opens it.
    """

    id: ConnectionId
    owner_id: UserId
    name: str
    former_names: list[str]
    kind: ConnectionKind
    base_url: str | None
    api_version: str | None
    deployment: str | None
    default_model: str | None
    num_ctx: int | None
    api: ConnectionApi
    is_active: bool
    sealed_key: bytes | None = field(repr=False)
    key_id: str | None
    last_four: str | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """A part of prompts: text, or a script whose outputs make text.

    `requires_ai`, `analysis` and `refers_to` (the names that its content refers to) are computed when it is saved.
    """

    id: ModuleId
    owner_id: UserId
    name: str
    description: str
    type: ModuleType
    content: str
    script: str
    trigger_pattern: str | None
    trigger_depth: int
    execution_context: ExecutionContext
    timeout_ms: int | None
    is_active: bool
    requires_ai: bool
    analysis: dict[str, Any] | None
    refers_to: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """Something worth remembering of a session, and which of its messages it is about."""

    id: MemoryId
    session_id: SessionId
    owner_id: UserId
    content: str
    first_message: int | None
    last_message: int | None
    metadata: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a session. Its bytes lie on disk.

    `text_note` says why there is no text, or what is to be known of it. `width` and `height` are those of pictures;
    `view_type` is the kind of the smaller picture that models are shown instead, if there is one.
    """

    id: FileId
    session_id: SessionId
    owner_id: UserId
    name: str
    media_type: str
    size: int
    sha256: str
    text_state: TextState
    text_note: str | None
    characters: int
    token_count: int
    width: int | None
    height: int | None
    view_type: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A piece of a file's text, and the number of characters before it."""

    file_id: FileId
    start: int
    content: str


@dataclass(frozen=True, slots=True)
class RunTraceRecord:
    """The prompt that a run was given, and how it came about."""

    run_id: RunId
    session_id: SessionId
    prompt: str
    trace: Any
    created_at: datetime


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
    tools: dict[str, Any]
    metadata: dict[str, Any]
    active_leaf_id: MessageId | None
    version: int
    created_at: datetime
    updated_at: datetime
    title_is_given: bool
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
class ContextItemRecord:
    """One thing that the model is told, where that is not the message itself; `token_count` is all that it costs."""

    body: dict[str, Any]
    token_count: int


@dataclass(frozen=True, slots=True)
class ContextSummaryRecord:
    """What stands in the context for a message and all before it: a summary of them, or a mark that they are left out.

    `usage` is what making it cost, where no run has counted that.
    """

    id: SummaryId
    session_id: SessionId
    message_id: MessageId
    kind: SummaryKind
    text: str
    token_count: int
    summarized_messages: int
    tokens_before: int
    model: str | None
    usage: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """A message as the context knows it.

    Its `items`, if it has any, cost `context_tokens` together with what of its text comes after them. `stopped_by`
    tells who stopped a reply that was interrupted.
    """

    id: MessageId
    role: MessageRole
    content: str
    token_count: int
    context_tokens: int | None
    finish_reason: str | None
    stopped_by: str | None
    items: tuple[ContextItemRecord, ...] = ()


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
    handed_to: RunId | None = None
    """The run that took its message on, or was to."""
    context: dict[str, Any] | None = None
    """What filled the model's window, once that is known."""
    credential_id: UUID | None = None
    """The sign-in or API key through which it was asked for: it ends with that."""


@dataclass(frozen=True, slots=True)
class ToolCallRecord:
    """A call of a tool. It has ended once `finished_at` is set; `told` is what the model was told of it then.

    `name` is what the model calls the tool, `name_there` what its server does. `waiting` for somebody's word until
    `expires_at`, and why, is told by `reason`; one that was rejected has the reason for that there.
    """

    session_id: SessionId
    run_id: RunId
    id: str
    name: str
    server: str | None
    name_there: str
    arguments: str
    state: CallState
    reason: str | None
    parameters: dict[str, Any] | None
    told: str | None
    created_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
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


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One thing that was done or refused. `user_id` is None where nobody was known; what it names may be gone."""

    id: UUID
    at: datetime
    user_id: UserId | None
    credential_kind: str | None
    credential_id: UUID | None
    action: str
    subject_kind: str
    subject_id: str | None
    outcome: str
    address: str | None
    request_id: str | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """A key of a user's programs. The key itself is kept nowhere; `last_four` are the last of its characters."""

    id: ApiKeyId
    user_id: UserId
    name: str
    last_four: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldRight:
    """What a key or ticket that was shown stands for. The scopes are those that it was given, whatever holds today."""

    user_id: UserId
    is_admin: bool
    scopes: list[str]
    credential_id: UUID
    is_key: bool
    """Whether the credential is an API key, and not a sign-in."""
