"""Taking messages in: what a user sends is looked at, counted and stored, once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from db.ids import FileId, MessageId, PersonaId, RunId, SessionId, UserId, new_id
from db.records import RunRecord
from db.stores.accepting import (
    Accepted,
    AcceptStore,
    NewRun,
    NewUserMessage,
    NoSuchMessage,
    NoSuchSession,
    QueueIsFull,
    RunIsActive,
    WhenBusy,
)
from db.stores.events import NewEvent
from db.stores.personas import PersonaStore
from db.stores.runs import RunStore
from services.connections.directory import ConnectionDirectory
from services.context.tokens import TokenCounter
from services.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    SessionBusy,
    ShuttingDown,
    TooManyRequests,
    no_session,
)
from services.files.attachments import Attachments
from services.prompt.facts import mentions
from services.providers.controls import validate_controls
from services.questions import Question, Questions, Regenerate, no_message
from services.runs.engine import RunEngine
from services.runs.events import MessageAccepted, encode, timestamp
from services.runs.journal import Journal
from services.runs.retry import until_answered
from services.usage.quota import Quota

_ACCEPT_ATTEMPTS = 6
"""About a second of waiting: longer than a restart of a small database, shorter than a person's patience."""


@dataclass(frozen=True, slots=True)
class Send:
    """What a user asks for: one or more turns that get one reply. What is None is left to the session or persona."""

    contents: Sequence[str]
    client_message_id: str | None = None
    when_busy: WhenBusy = "interrupt"
    persona_id: PersonaId | None = None
    connection: str | None = None
    model: str | None = None
    controls: Mapping[str, Any] = field(default_factory=dict[str, Any])
    replaces: MessageId | None = None
    """A message of the user beside which these turns stand, in a branch of their own."""
    answers: MessageId | None = None
    """A message of the user that is there already and is answered once more: `contents` are what was said in it."""
    attachments: Sequence[FileId] = ()
    """Files of the session that come with the last of the turns."""
    credential_id: UUID | None = None
    """The sign-in or API key through which it is asked for: what comes of it ends with that."""


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """Numbers of the operator."""

    message_bytes: int
    runs_per_user: int
    queued_per_session: int


class Inbox:
    """Stores what users say, with the runs that are to answer it."""

    def __init__(
        self,
        *,
        questions: Questions,
        attachments: Attachments,
        personas: PersonaStore,
        accepting: AcceptStore,
        runs: RunStore,
        journal: Journal,
        engine: RunEngine,
        connections: ConnectionDirectory,
        tokens: TokenCounter,
        limits: InboxLimits,
        quota: Quota,
    ) -> None:
        self._questions = questions
        self._attachments = attachments
        self._personas = personas
        self._accepting = accepting
        self._runs = runs
        self._journal = journal
        self._engine = engine
        self._connections = connections
        self._tokens = tokens
        self._limits = limits
        self._quota = quota

    async def take(self, owner_id: UserId, session_id: SessionId, send: Send | Regenerate) -> Accepted:
        """Store a message and the run that is to answer it, and tell the session's readers.

        Raises what `ChatService.send` raises.
        """
        if isinstance(send, Regenerate):
            send = _once_more(send, await self._questions.find(owner_id, session_id, send))
        send = await self.checked(owner_id, send)
        try:
            await self._quota.check(owner_id)
        except QuotaExceeded:
            if known := await self._taken_before(owner_id, session_id, send):
                return known
            raise
        self._check_room(owner_id, session_id)
        if send.replaces is not None:
            await self._questions.check(owner_id, session_id, send.replaces)
        if send.persona_id and await self._personas.get(send.persona_id, owner_id) is None:
            raise NotFound("There is no persona with that id.", field="persona_id")
        return await self._accept(owner_id, session_id, send)

    async def checked(self, owner_id: UserId, send: Send) -> Send:
        """`send` in the form in which it is stored. Raises what `send` raises of the request itself."""
        if self._engine.is_draining:
            raise ShuttingDown
        worded = send.contents[:-1] if send.attachments else send.contents
        if not send.contents or not (send.answers or all(content.strip() for content in worded)):
            raise InvalidRequest("A message needs some text.", field="content")
        named = [("client_message_id", send.client_message_id), ("model", send.model)]
        for field_name, text in (*(("content", content) for content in send.contents), *named):
            if "\0" in (text or ""):
                raise InvalidRequest(f"{field_name} cannot contain NUL characters.", field=field_name)
        if sum(_bytes(content) for content in send.contents) > self._limits.message_bytes:
            raise InvalidRequest(f"A message has at most {self._limits.message_bytes} bytes.", field="content")
        if send.connection is not None:
            await self._connections.check(owner_id, send.connection)
        return replace(send, controls=validate_controls(send.controls))

    def _check_room(self, owner_id: UserId, session_id: SessionId) -> None:
        # A session performs one run at a time, so a message for one that is busy adds none.
        if self._engine.count(owner_id, besides=session_id) >= self._limits.runs_per_user:
            raise TooManyRequests(
                f"{self._limits.runs_per_user} replies are running already.",
                retry_after=5,
                limit=self._limits.runs_per_user,
            )

    async def _accept(self, owner_id: UserId, session_id: SessionId, send: Send) -> Accepted:
        if send.attachments and (known := await self._taken_before(owner_id, session_id, send)):
            return known
        turns = [] if send.answers else await self._turns(owner_id, session_id, send)
        message_id = send.answers or turns[-1].id
        new = NewRun(
            RunId(new_id()),
            session_id,
            owner_id,
            send.client_message_id or str(new_id()),
            turns,
            _stored(send),
            send.replaces,
            send.answers,
            send.credential_id,
        )
        at = timestamp()

        def announce(queued: bool, run_id: RunId) -> NewEvent:
            return encode(MessageAccepted(message_id, new.client_message_id, queued), run_id, at)

        try:
            # A commit that is not answered is tried again: the run's id tells whether it happened.
            accepted = await until_answered(
                lambda: self._accepting.accept(
                    new,
                    replica_id=self._engine.replica_id,
                    when_busy=send.when_busy,
                    queue_limit=self._limits.queued_per_session,
                    announce=announce,
                ),
                attempts=_ACCEPT_ATTEMPTS,
            )
        except NoSuchSession as error:
            raise no_session() from error
        except NoSuchMessage as error:
            raise no_message("replaces" if send.replaces else "message_id") from error
        except RunIsActive as error:
            raise SessionBusy(active_run=str(error)) from error
        except QueueIsFull as error:
            raise TooManyRequests("Too many messages wait in this session.", retry_after=5) from error
        if accepted.is_new:
            # Not what the last attempt would have said, but what is stored: an earlier one may have been committed.
            told_of = accepted.run.handed_to or accepted.run.id
            was_queued = accepted.run.started_at != accepted.run.created_at and told_of == accepted.run.id
            self._journal.show(session_id, told_of, accepted.run.first_seq, [announce(was_queued, told_of)])
        else:
            _check_same(accepted.run, new.request)
        return accepted

    async def _taken_before(self, owner_id: UserId, session_id: SessionId, send: Send) -> Accepted | None:
        """A retry of a message whose files may have been deleted since."""
        if send.client_message_id is None:
            return None
        run = await self._runs.sent_as(send.client_message_id, session_id, owner_id)
        if run is None:
            return None
        _check_same(run, _stored(send))
        return Accepted(run, is_new=False)

    async def _turns(self, owner_id: UserId, session_id: SessionId, send: Send) -> list[NewUserMessage]:
        """What the user said, to be stored; the files came with the last of it."""
        taken = await self._attachments.take(owner_id, session_id, send.attachments)
        turns = [
            NewUserMessage(MessageId(new_id()), content, await self._tokens.count(content)) for content in send.contents
        ]
        return turns if taken is None else [*turns[:-1], taken.with_words(turns[-1])]


def _check_same(run: RunRecord, request: Mapping[str, Any]) -> None:
    if run.request["digest"] != request["digest"]:
        raise Conflict("Another message was sent with that client_message_id.", field="client_message_id")


def _bytes(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest("A message must be valid Unicode.", field="content") from error


def _text(id: UUID | None) -> str | None:
    return None if id is None else str(id)


def _once_more(wanted: Regenerate, question: Question) -> Send:
    """What was sent then, with what is wanted otherwise this time."""
    return Send(
        question.contents,
        wanted.client_message_id,
        wanted.when_busy,
        wanted.persona_id or question.persona_id,
        wanted.connection or question.connection,
        wanted.model or question.model,
        {**question.controls, **wanted.controls},
        answers=question.message_id,
        credential_id=wanted.credential_id,
    )


def _stored(send: Send) -> dict[str, Any]:
    """What the run remembers of the request; `digest` tells a retry from another message with the same id."""
    asked: dict[str, Any] = {
        "persona_id": send.persona_id and str(send.persona_id),
        "connection": send.connection,
        "model": send.model,
        "controls": dict(send.controls),
        "turns": len(send.contents),
        "mentions": mentions(send.contents),
    }
    if send.attachments:
        asked["attachments"] = [str(file_id) for file_id in send.attachments]
    if send.replaces or send.answers:
        asked |= {"replaces": _text(send.replaces), "answers": _text(send.answers)}
    digest = hashlib.sha256(repr((list(send.contents), asked)).encode()).hexdigest()
    return asked | {"digest": digest, "when_busy": send.when_busy}
