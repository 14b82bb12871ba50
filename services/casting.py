"""Who answers a message: which persona, which model, with which controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.ids import MessageId, PersonaId, SessionId, UserId
from db.records import PersonaRecord, RunRecord
from db.stores.personas import PersonaStore
from db.stores.sessions import SessionStore
from db.stores.users import UserStore
from services.connections.directory import ConnectionDirectory
from services.errors import NotFound, ProviderError, no_session
from services.providers.base import Provider

_NOBODY = ("You", "UTC")
"""Name and time zone, should the user be gone in this moment."""


@dataclass(frozen=True, slots=True)
class Casting:
    """Who answers, and whom: the persona, the model and its controls."""

    persona: PersonaRecord | None
    session_title: str | None
    user_name: str
    provider: Provider
    model: str
    controls: Mapping[str, Any]
    is_untitled: bool = False
    """Whether the session has no title, and nobody has said that it should have none."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The `tools` fields of the session and the persona; the session's goes before."""
    timezone: str = "UTC"
    """The user's, for what scripts say of the time."""

    @property
    def persona_id(self) -> PersonaId | None:
        """The persona's id, if there is one."""
        return self.persona and self.persona.id

    @property
    def template(self) -> str:
        """What the system prompt is made of; empty without a persona."""
        return self.persona.template if self.persona else ""


class CastingOffice:
    """Finds who answers."""

    def __init__(
        self, sessions: SessionStore, personas: PersonaStore, users: UserStore, connections: ConnectionDirectory
    ) -> None:
        self._sessions = sessions
        self._personas = personas
        self._users = users
        self._connections = connections

    async def cast(self, record: RunRecord) -> Casting:
        """What the message asks for goes before the session's word, and that before the persona's.

        Raises `NotFound` if the session was deleted, `UnknownModel`, what asking a provider for its models raises, and
        what `ConnectionDirectory.get` raises.
        """
        asked = record.request
        session = await self._sessions.get(record.session_id, record.owner_id)
        if session is None:
            raise NotFound("The session was deleted.")
        persona_id = PersonaId(UUID(asked["persona_id"])) if asked["persona_id"] else session.persona_id
        persona = await self._personas.get(persona_id, record.owner_id) if persona_id else None
        words = [asked, {"connection": session.connection, "model": session.model}]
        if persona is not None:
            words.append({"connection": persona.connection, "model": persona.model})
        # A model belongs to its connection: whoever names a connection leaves the less specific models aside.
        connection, model = _first_named(words)
        provider = await self._connections.get(record.owner_id, connection)
        name, timezone = await self._user(record.owner_id)
        return Casting(
            persona,
            session.title,
            name,
            provider,
            await self._connections.model_for(provider, model),
            {**(persona.controls if persona else {}), **session.controls, **asked["controls"]},
            session.title is None and not session.title_is_given,
            (session.tools, *([persona.tools] if persona else [])),
            timezone,
        )

    async def rehearse(
        self, owner_id: UserId, persona_id: PersonaId | None, session_id: SessionId | None
    ) -> tuple[Casting, MessageId | None]:
        """Who would answer, for trying something out, and the newest message. Raises `NotFound`.

        A model server that is down does not matter.
        """
        session = await self._sessions.get(session_id, owner_id) if session_id else None
        if session_id and session is None:
            raise no_session(field="session_id")
        persona_id = persona_id or (session.persona_id if session else None)
        persona = await self._personas.get(persona_id, owner_id) if persona_id else None
        if persona_id and persona is None:
            raise NotFound("There is no persona with that id.", field="persona_id")
        words = [{"connection": one.connection, "model": one.model} for one in (session, persona) if one is not None]
        connection, model = _first_named(words)
        provider = await self._connections.get(owner_id, connection)
        try:
            model = await self._connections.model_for(provider, model)
        except ProviderError:
            model = ""
        name, timezone = await self._user(owner_id)
        casting = Casting(persona, session and session.title, name, provider, model, {}, timezone=timezone)
        return casting, session and session.active_leaf_id

    async def _user(self, user_id: UserId) -> tuple[str, str]:
        user = await self._users.get(user_id)
        return _NOBODY if user is None else (user.display_name, user.timezone or "UTC")


def _first_named(words: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """Connection and model, from the most to the least specific word."""
    connection: str | None = None
    model: str | None = None
    for word in words:
        model = model or word["model"]
        if word["connection"]:
            connection = word["connection"]
            break
    return connection, model
