"""What is to be answered once more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from db.ids import MessageId, PersonaId, SessionId, UserId
from db.records import MessageRecord, RunRecord
from db.stores.messages import MessageStore
from db.stores.personas import PersonaStore
from db.stores.runs import RunStore
from services.connections.directory import ConnectionDirectory
from services.errors import InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class Regenerate:
    """A wish for another reply, beside the reply `message_id` or to the user's message `message_id`.

    What is None, and controls that are not named, are as they were when the message was sent.
    """

    message_id: MessageId
    client_message_id: str | None = None
    when_busy: Literal["interrupt", "queue", "reject"] = "interrupt"
    persona_id: PersonaId | None = None
    connection: str | None = None
    model: str | None = None
    controls: Mapping[str, Any] = field(default_factory=dict[str, Any])
    credential_id: UUID | None = None
    """The sign-in or API key through which it is asked for."""


@dataclass(frozen=True, slots=True)
class Question:
    """A message of the user with the turns before it that were sent together with it, and what was asked for then."""

    message_id: MessageId
    contents: tuple[str, ...]
    persona_id: PersonaId | None
    connection: str | None
    model: str | None
    controls: Mapping[str, Any]


class Questions:
    """Finds what was asked."""

    def __init__(
        self, *, messages: MessageStore, runs: RunStore, personas: PersonaStore, connections: ConnectionDirectory
    ) -> None:
        self._messages = messages
        self._runs = runs
        self._personas = personas
        self._connections = connections

    async def find(self, owner_id: UserId, session_id: SessionId, wanted: Regenerate) -> Question:
        """What is to be answered once more. Raises `NotFound`, and `InvalidRequest` if nobody asked."""
        message_id = await self._asked(owner_id, session_id, wanted.message_id)
        turns = await self._messages.turns_to(session_id, owner_id, message_id)
        if not turns:
            raise no_message("message_id")
        first = turns[-1].run_id and await self._runs.get(turns[-1].run_id, session_id, owner_id)
        return await self._question(owner_id, turns, first)

    async def check(self, owner_id: UserId, session_id: SessionId, message_id: MessageId) -> None:
        """Raises `NotFound`, or `InvalidRequest` if the message is not the user's."""
        message = await self._messages.get(message_id, owner_id)
        if message is None or message.session_id != session_id:
            raise no_message("replaces")
        if message.role != "user":
            raise InvalidRequest("Only what you said can be replaced.", field="replaces")

    async def _asked(self, owner_id: UserId, session_id: SessionId, message_id: MessageId) -> MessageId:
        """The user's message that is named, or that the named reply is to."""
        message = await self._messages.get(message_id, owner_id)
        if message is None:
            asked = await self._runs.answered_by(session_id, owner_id, message_id)
            if asked is not None:
                return asked
            message = await self._messages.get(message_id, owner_id)  # its reply may have ended in between
        if message is None or message.session_id != session_id:
            raise no_message("message_id")
        if message.role == "user":
            return message.id
        parent = message.parent_id and await self._messages.get(message.parent_id, owner_id)
        if message.role != "assistant" or parent is None or parent.role != "user":
            raise InvalidRequest("That is no reply to anything that you said.", field="message_id")
        return parent.id

    async def _question(self, owner_id: UserId, turns: list[MessageRecord], run: RunRecord | None) -> Question:
        """What is gone since then is not asked for again: the session decides instead."""
        asked: Mapping[str, Any] = run.request if run else {}
        persona_id = asked.get("persona_id") and PersonaId(UUID(asked["persona_id"]))
        if persona_id and await self._personas.get(persona_id, owner_id) is None:
            persona_id = None
        connection = asked.get("connection")
        is_known = connection is not None and await self._connections.knows(owner_id, connection)
        return Question(
            turns[-1].id,
            tuple(turn.content for turn in turns),
            persona_id or None,
            connection if is_known else None,
            asked.get("model") if is_known or connection is None else None,
            asked.get("controls", {}),
        )


def no_message(field_name: str) -> NotFound:
    """The error that says that a message is not in the session."""
    return NotFound("There is no message with that id in this session.", field=field_name)
