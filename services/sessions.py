"""Sessions: chat threads and what their owner sets for them."""

from collections.abc import Mapping
from typing import Any

from db.ids import MessageId, PersonaId, RunId, SessionId, UserId, new_id
from db.records import SessionRecord
from db.stores.events import NewEvent
from db.stores.personas import PersonaStore
from db.stores.sessions import FirstMessage, NoSuchPersona, NotInSession, SessionStore
from services.audit import AuditLog
from services.chat import ChatService
from services.connections.directory import ConnectionDirectory
from services.context.tokens import TokenCounter
from services.errors import Conflict, NotFound, StaleVersion, no_session
from services.files.service import FileService
from services.mcp.pool import McpPool
from services.providers.controls import validate_controls
from services.runs.events import SessionUpdated, encode, timestamp
from services.runs.journal import Journal


class SessionService:
    """Keeps the sessions of an owner."""

    def __init__(
        self,
        sessions: SessionStore,
        personas: PersonaStore,
        tokens: TokenCounter,
        chat: ChatService,
        journal: Journal,
        connections: ConnectionDirectory,
        files: FileService,
        tool_servers: McpPool,
        audit: AuditLog,
    ) -> None:
        self._sessions = sessions
        self._personas = personas
        self._tokens = tokens
        self._chat = chat
        self._journal = journal
        self._connections = connections
        self._files = files
        self._tool_servers = tool_servers
        self._audit = audit

    async def create(self, owner_id: UserId, **fields: Any) -> SessionRecord:
        """Begin a session; what its persona says first is its first message.

        `fields` are the record's own, any may be left out; without `persona_id` the owner's default answers.
        Raises `NotFound` for the persona, `UnknownProvider`, `UnknownControl`, `InvalidControl`.
        """
        checked = await self._checked(owner_id, fields)
        if "persona_id" not in checked:
            default = await self._personas.get_default(owner_id)
            checked["persona_id"] = default and default.id
        persona_id: PersonaId | None = checked["persona_id"]
        first_message = await self._first_message(owner_id, persona_id) if persona_id else None
        try:
            return await self._sessions.create(SessionId(new_id()), owner_id, checked, first_message)
        except NoSuchPersona as error:
            raise _no_persona() from error

    async def get(self, owner_id: UserId, session_id: SessionId) -> SessionRecord:
        """One session. Raises `NotFound`."""
        session = await self._sessions.get(session_id, owner_id)
        if session is None:
            raise no_session()
        return session

    async def list(
        self, owner_id: UserId, *, persona_id: PersonaId | None, before: SessionId | None, limit: int
    ) -> tuple[list[SessionRecord], SessionId | None]:
        """Up to `limit` sessions made before `before`, newest first, and where the next page begins if there is one.

        Raises `NotFound` for a persona that is not the owner's.
        """
        if persona_id is not None and await self._personas.get(persona_id, owner_id) is None:
            raise _no_persona()
        found = await self._sessions.list(owner_id, persona_id=persona_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def update(
        self, owner_id: UserId, session_id: SessionId, changes: Mapping[str, Any], *, version: int | None
    ) -> SessionRecord:
        """Change the named fields and tell the session's readers.

        `active_message_id` makes the newest branch that runs through that message the active one. What runs in
        another branch goes on there. Raises what `create` raises, `NotFound` for that message, and `StaleVersion` if
        `version` is given and old.
        """
        checked = await self._checked(owner_id, changes)
        if not checked:
            return await self._unchanged(owner_id, session_id, version)
        try:
            done = await self._sessions.update(session_id, owner_id, checked, version=version, announce=_announced)
        except NoSuchPersona as error:
            raise _no_persona() from error
        except NotInSession as error:
            raise NotFound("There is no message with that id in this session.", field="active_message_id") from error
        if done is None:
            session = await self.get(owner_id, session_id)
            raise StaleVersion(version=session.version)
        updated, event = done
        self._journal.show(session_id, None, updated.last_seq, [event])
        return updated

    async def delete(self, owner_id: UserId, session_id: SessionId, *, version: int | None) -> None:
        """Stop what runs in the session and delete it with all that was said. Raises `NotFound`, `StaleVersion`."""
        await self._unchanged(owner_id, session_id, version)
        await self._stop(owner_id, session_id)
        async with self._files.going_with(owner_id, session_id):
            if not await self._sessions.delete(session_id, owner_id, version=version):
                await self._unchanged(owner_id, session_id, version)
        self._journal.end(session_id)
        await self._tool_servers.end_session(session_id)
        await self._audit.note(owner_id, "session.delete", session_id)

    async def interrupt(self, owner_id: UserId, session_id: SessionId, run_id: RunId | None) -> RunId:
        """Stop a run of the session, the active one if none is named. Raises `NotFound`, `NothingRunning`."""
        await self.get(owner_id, session_id)
        return await self._chat.interrupt(owner_id, session_id, run_id)

    async def _stop(self, owner_id: UserId, session_id: SessionId) -> None:
        # Only one run is at work, and what waits behind it goes with the session's rows: whoever performs it
        # finds its lease gone.
        try:
            await self._chat.interrupt(owner_id, session_id, None)
        except (Conflict, NotFound):
            return

    async def _unchanged(self, owner_id: UserId, session_id: SessionId, version: int | None) -> SessionRecord:
        session = await self.get(owner_id, session_id)
        if version is not None and session.version != version:
            raise StaleVersion(version=session.version)
        return session

    async def _first_message(self, owner_id: UserId, persona_id: PersonaId) -> FirstMessage | None:
        persona = await self._personas.get(persona_id, owner_id)
        if persona is None:
            raise _no_persona()
        if not persona.first_message:
            return None
        tokens = await self._tokens.count(persona.first_message)
        return FirstMessage(MessageId(new_id()), persona.first_message, tokens)

    async def _checked(self, owner_id: UserId, fields: Mapping[str, Any]) -> dict[str, Any]:
        checked = dict(fields)
        if checked.get("connection") is not None:
            await self._connections.check(owner_id, checked["connection"])
        if "controls" in checked:
            checked["controls"] = dict(validate_controls(checked["controls"] or {}))
        if "tools" in checked:
            checked["tools"] = dict(checked["tools"] or {})
        if "metadata" in checked:
            checked["metadata"] = dict(checked["metadata"] or {})
        return checked


def _announced(changes: Mapping[str, Any]) -> NewEvent:
    return encode(SessionUpdated(changes), None, timestamp())


def _no_persona() -> NotFound:
    return NotFound("There is no persona with that id.", field="persona_id")
