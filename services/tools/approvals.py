"""Somebody's word on calls that wait for it: from any socket, over REST, at any replica."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from db.ids import SessionId, UserId
from db.records import ToolCallRecord
from db.stores.tool_calls import ToolCallStore
from services.errors import Conflict, InvalidRequest, NotFound, StaleVersion
from services.sessions import SessionService
from services.tools.arguments import ArgumentCheck
from services.tools.builtin import BUILT_IN
from services.tools.decisions import Decisions
from services.tools.grants import remembered
from services.tools.ledger import REFUSED

_ATTEMPTS = 5


class NotWaiting(Conflict):
    """The call does not wait for a decision any more."""

    code = "not_waiting"


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says of a call; with `remember`, of all calls of that tool in the session."""

    decision: Literal["approve", "reject"]
    arguments: Mapping[str, Any] | None = None
    remember: bool = False


class ApprovalService:
    """Takes decisions and hands them to the runs that wait."""

    def __init__(self, store: ToolCallStore, sessions: SessionService, decisions: Decisions) -> None:
        self._store = store
        self._sessions = sessions
        self._decisions = decisions

    async def waiting(self, owner_id: UserId, session_id: SessionId) -> Sequence[ToolCallRecord]:
        """The calls of the session that wait for a decision, oldest first. Raises `NotFound`."""
        await self._sessions.get(owner_id, session_id)
        return await self._store.waiting(session_id, owner_id)

    async def decide(self, owner_id: UserId, session_id: SessionId, call_id: str, word: Word) -> ToolCallRecord:
        """Let a waiting call be made or not, wherever its run is.

        Raises `NotFound`, `NotWaiting` if it was decided, has expired or its run was stopped, and `InvalidRequest` for
        arguments that do not fit the tool.
        """
        arguments = None if word.arguments is None else await self._checked(owner_id, session_id, call_id, word)
        decided = await self._decide(owner_id, session_id, call_id, word, arguments)
        if decided is None:
            call = await self._found(owner_id, session_id, call_id)
            raise NotWaiting(tool_call_id=call_id, state=call.state)
        if word.remember:
            await self._remember(owner_id, decided, word)
        return decided

    async def _decide(
        self, owner_id: UserId, session_id: SessionId, call_id: str, word: Word, arguments: str | None
    ) -> ToolCallRecord | None:
        approves = word.decision == "approve"
        decided = await self._store.decide(
            session_id,
            owner_id,
            call_id,
            "approved" if approves else "rejected",
            arguments=arguments,
            reason=None if approves else REFUSED,
        )
        if decided is not None and not self._decisions.tell(decided.run_id):
            await self._store.notify_decided(decided.run_id)
        return decided

    async def _remember(self, owner_id: UserId, decided: ToolCallRecord, word: Word) -> None:
        """Make it the session's word, and let it count for the same tool's other calls that wait."""
        server = decided.server or BUILT_IN
        grant = "auto" if word.decision == "approve" else "never"
        for attempt in range(_ATTEMPTS):
            session = await self._sessions.get(owner_id, decided.session_id)
            tools = remembered(session.tools, server, decided.name_there, grant)
            try:
                await self._sessions.update(owner_id, session.id, {"tools": tools}, version=session.version)
                break
            except StaleVersion:
                if attempt == _ATTEMPTS - 1:
                    raise
        for other in await self._store.waiting(decided.session_id, owner_id):
            if (other.server, other.name_there) == (decided.server, decided.name_there):
                await self._decide(owner_id, decided.session_id, other.id, word, None)

    async def _checked(self, owner_id: UserId, session_id: SessionId, call_id: str, word: Word) -> str:
        if word.decision == "reject":
            raise InvalidRequest("A call that is rejected needs no arguments.", field="arguments")
        call = await self._found(owner_id, session_id, call_id)
        if wrong := ArgumentCheck(call.parameters or {})(word.arguments or {}):
            raise InvalidRequest(f"The arguments do not fit the tool: {wrong}", field="arguments")
        return orjson.dumps(word.arguments).decode()

    async def _found(self, owner_id: UserId, session_id: SessionId, call_id: str) -> ToolCallRecord:
        call = await self._store.get(session_id, owner_id, call_id)
        if call is None:
            raise NotFound("There is no call with that id in this session.", field="tool_call_id")
        return call
