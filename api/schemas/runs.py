"""Sending messages over REST, and the runs that they cause."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from api.schemas.lab import PromptTrace
from api.schemas.messages import Message
from api.schemas.model import Answer, Body, Controls, Name, NotNull, Text
from api.schemas.pages import Page
from db.ids import FileId, MessageId, PersonaId
from db.records import RunRecord, RunState, RunTraceRecord
from db.stores.accepting import WhenBusy
from services.accounts.caller import Caller
from services.inbox import Send
from services.prompt.archive import RECIPE, Rendering
from services.prompt.prefix import Prefix
from services.questions import Regenerate
from services.replies import Reply

_MOST_TURNS = 20
_MOST_ATTACHMENTS = 20


class Turn(Body):
    """One of several user turns."""

    content: Text


class MessageSend(Body):
    """A message to be answered: either `content`, or `messages`, several turns that get one reply."""

    content: Text | None = None
    messages: list[Turn] | None = Field(None, min_length=1, max_length=_MOST_TURNS)
    attachments: list[UUID] = Field(
        default_factory=list[UUID],
        max_length=_MOST_ATTACHMENTS,
        description="Ids of files of the session that come with it; then `content` may be empty.",
    )
    client_message_id: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Your own id for this message: sent again, it gets the same run and not a second one."
    )
    when_busy: Annotated[WhenBusy, NotNull] = Field(
        "interrupt",
        description="If a reply is running: stop it, answer after it, refuse, or let the reply take it in on the way.",
    )
    persona_id: UUID | None = Field(None, description="Who answers this message, instead of the session's persona.")
    connection_id: Name | None = Field(None, description="The model server for this message.")
    model: Name | None = None
    controls: Controls | None = None
    replaces: UUID | None = Field(
        None, description="A message of yours that this one is an edit of: a new branch begins, the old one stays."
    )

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if (self.content is None) == (self.messages is None):
            raise ValueError("give either content or messages")
        return self

    def to_send(self, caller: Caller, key: str | None = None) -> Send:
        """The same in the words of the chat service."""
        contents = [turn.content for turn in self.messages] if self.messages else [self.content or ""]
        return Send(
            contents=contents,
            client_message_id=self.client_message_id or key,
            when_busy=self.when_busy,
            persona_id=self.persona_id and PersonaId(self.persona_id),
            connection=self.connection_id,
            model=self.model,
            controls=self.controls or {},
            attachments=[FileId(file_id) for file_id in self.attachments],
            replaces=self.replaces and MessageId(self.replaces),
            credential_id=caller.credential_id,
        )


class RegenerateRequest(Body):
    """Which message is to be answered once more. What is left out is as it was when it was sent."""

    message_id: UUID = Field(description="A reply, or a message of yours.")
    client_message_id: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Your own id for this request: sent again, it gets the same run and not a second one."
    )
    when_busy: Annotated[Literal["interrupt", "queue", "reject"], NotNull] = Field(
        "interrupt", description="If a reply is running: stop it, answer after it, or refuse."
    )
    persona_id: UUID | None = Field(None, description="Who answers this time.")
    connection_id: Name | None = Field(None, description="The model server for this time.")
    model: Name | None = None
    controls: Controls | None = Field(None, description="Each goes before what was said of it then.")

    def to_regenerate(self, caller: Caller, key: str | None = None) -> Regenerate:
        """The same in the words of the chat service."""
        return Regenerate(
            MessageId(self.message_id),
            self.client_message_id or key,
            self.when_busy,
            self.persona_id and PersonaId(self.persona_id),
            self.connection_id,
            self.model,
            self.controls or {},
            caller.credential_id,
        )


class InterruptRequest(Body):
    """Which run to stop."""

    run_id: UUID | None = Field(None, description="The active one if left out.")


class InterruptAnswer(Answer):
    """The run was told to stop; its last events follow."""

    run_id: UUID


class Usage(Answer):
    """Tokens as the model server counted them; null where it did not tell."""

    input_tokens: int | None
    output_tokens: int | None
    thinking_tokens: int | None


class RunError(Answer):
    """What went wrong in a run."""

    code: str
    message: str


class RunSummary(Answer):
    """The work that one user message causes."""

    id: UUID
    session_id: UUID
    client_message_id: str
    user_message_id: UUID
    message_id: UUID | None = Field(description="The reply, once it is stored.")
    state: RunState
    finish_reason: Literal["stop", "length", "interrupted", "refusal", "max_turns", "error", "steered"] | None = Field(
        description="`steered`: another run took its message into the reply that it was making."
    )
    interrupted_by: str | None
    error: RunError | None
    usage: Usage | None
    timings: dict[str, Any] | None
    context: dict[str, Any] | None = Field(description="What filled the model's window, in tokens (estimates).")
    first_seq: int = Field(description="The position of its first event.")
    last_seq: int | None = Field(
        description="The position of its last event, apart from those of work that went on after the reply."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def summarized(cls, record: RunRecord) -> Self:
        """What a client sees of the record."""
        return cls.model_validate(_seen(record))


class RunPage(Page[RunSummary]):
    """Some of a session's runs, newest first."""


class PromptPrefix(Answer):
    """The beginning that a prompt has in common with that of the run before: providers need not read it again."""

    characters: int
    is_whole: bool = Field(description="Both prompts are the same.")
    broken_by: str | None = Field(description="The module whose words differ first; null for the template itself.")

    @classmethod
    def of(cls, prefix: Prefix) -> Self:
        """What a client sees of it."""
        return cls(characters=prefix.characters, is_whole=prefix.is_whole, broken_by=prefix.broken_by)


class Run(RunSummary):
    """The work that one user message causes, with the prompt that it was done with."""

    prompt: str | None = Field(description="What the model was told first; null without a persona, or before that.")
    trace: PromptTrace | None = Field(description="How the prompt came about.")
    prefix: PromptPrefix | None = Field(description="How the prompt begins like that of the run before; null for none.")

    @classmethod
    def of(cls, record: RunRecord, stored: RunTraceRecord | None, prefix: Prefix | None) -> Self:
        """What a client sees of the record, and of the prompt that was stored with it."""
        trace = stored and {name: part for name, part in stored.trace.items() if name != RECIPE}
        if trace:
            trace["after"] = list(trace.get("after", {}).values())
        begins = prefix and PromptPrefix.of(prefix)
        return cls.model_validate(
            _seen(record) | {"prompt": stored and stored.prompt, "trace": trace, "prefix": begins}
        )


class PartChange(Answer):
    """A part of a prompt that has changed since its run."""

    kind: Literal["persona", "module"]
    name: str
    was: int | None = Field(description="Its version then; null if there was none.")
    now: int | None = Field(description="Its version now; null if it is gone.")


class RenderedPrompt(Answer):
    """The prompt of a run, rendered again."""

    prompt: str | None = Field(description="Null if the persona is gone.")
    is_same: bool = Field(description="It is what the model was told in the run, byte for byte.")
    changed: list[PartChange]

    @classmethod
    def of(cls, rendering: Rendering) -> Self:
        """What a client sees of it."""
        changed = [PartChange(kind=one.kind, name=one.name, was=one.was, now=one.now) for one in rendering.changed]
        return cls(prompt=rendering.prompt, is_same=rendering.is_same, changed=changed)


class ReplyAnswer(Answer):
    """A finished reply. `message` is null if the run ended before the model was asked."""

    run_id: UUID
    user_message: Message
    message: Message | None
    finish_reason: Literal["stop", "length", "interrupted", "refusal", "max_turns", "error"]
    usage: Usage | None
    error: RunError | None = Field(description="What went wrong, with the finish reason `error`.")

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """What a client sees of the reply."""
        return cls.model_validate(
            {
                "run_id": reply.run.id,
                "user_message": Message.of(reply.user_message, reply.siblings[reply.user_message.id]),
                "message": reply.message and Message.of(reply.message, reply.siblings[reply.message.id]),
                "finish_reason": reply.run.finish_reason,
                "usage": reply.run.usage,
                "error": _of_error(reply.run.error),
            }
        )


def _of_error(error: Mapping[str, Any] | None) -> RunError | None:
    return None if error is None else RunError(code=error["code"], message=error["message"])


def _seen(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "session_id": record.session_id,
        "client_message_id": record.client_message_id,
        "user_message_id": record.user_message_id,
        "message_id": record.reply_message_id,
        "state": record.state,
        "finish_reason": record.finish_reason,
        "interrupted_by": record.interrupt_by,
        "error": _of_error(record.error),
        "usage": record.usage,
        "timings": record.timings,
        "context": record.context,
        "first_seq": record.first_seq,
        "last_seq": record.last_seq,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
    }
