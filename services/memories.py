"""Memories: what scripts keep of a session, for its owner to read and to clear."""

from db.ids import MemoryId, SessionId, UserId
from db.records import MemoryRecord
from db.stores.memories import MemoryStore
from db.stores.sessions import SessionStore
from services.audit import AuditLog
from services.errors import no_session


class MemoryService:
    """Reads and clears the memories of an owner's sessions."""

    def __init__(self, memories: MemoryStore, sessions: SessionStore, audit: AuditLog) -> None:
        self._memories = memories
        self._sessions = sessions
        self._audit = audit

    async def list(
        self, owner_id: UserId, session_id: SessionId, *, before: MemoryId | None, limit: int
    ) -> tuple[list[MemoryRecord], MemoryId | None]:
        """Up to `limit` memories made before `before`, newest first, and where the next page begins if there is one.

        Raises `NotFound` for the session.
        """
        await self._find(owner_id, session_id)
        found = await self._memories.newest(session_id, owner_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def search(self, owner_id: UserId, session_id: SessionId, q: str, *, limit: int) -> "list[MemoryRecord]":
        """Memories that have words of `q`, the best first. Raises `NotFound` for the session."""
        await self._find(owner_id, session_id)
        return await self._memories.search(session_id, owner_id, q, limit=limit)

    async def clear(self, owner_id: UserId, session_id: SessionId) -> None:
        """Forget all memories of the session; what was said stays. Raises `NotFound` for the session."""
        await self._find(owner_id, session_id)
        count = await self._memories.clear(session_id, owner_id)
        await self._audit.note(owner_id, "session.clear_memories", session_id, memories=count)

    async def _find(self, owner_id: UserId, session_id: SessionId) -> None:
        if await self._sessions.get(session_id, owner_id) is None:
            raise no_session()
