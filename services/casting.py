"""Who answers a message: which persona, which model, with which controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.ids import PersonaId
from db.records import RunRecord
from db.stores.personas import PersonaStore
from db.stores.sessions import SessionStore
from services.errors import NotFound
from services.providers.base import Provider
from services.providers.registry import Providers


@dataclass(frozen=True, slots=True)
class Casting:
    """Who answers: the system prompt's source, the model and its controls."""

    persona_id: PersonaId | None
    template: str
    provider: Provider
    model: str
    controls: Mapping[str, Any]


class CastingOffice:
    """Finds who answers."""

    def __init__(self, sessions: SessionStore, personas: PersonaStore, providers: Providers) -> None:
        self._sessions = sessions
        self._personas = personas
        self._providers = providers

    async def cast(self, record: RunRecord) -> Casting:
        """What the message asks for goes before the session's word, and that before the persona's.

        Raises `NotFound` if the session was deleted, `UnknownProvider`, `UnknownModel` and what asking a provider for
        its models raises.
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
        provider = self._providers.get(connection)
        return Casting(
            persona and persona.id,
            persona.template if persona else "",
            provider,
            await self._providers.model_for(provider, model),
            {**(persona.controls if persona else {}), **session.controls, **asked["controls"]},
        )


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
