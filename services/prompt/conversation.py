"""`ctx`: what was said, in this session or in another one of the same owner."""

from collections.abc import Iterable
from datetime import UTC
from uuid import UUID

from db.ids import MessageId, SessionId
from db.stores.messages import Branch, Line, MessageStore
from db.stores.sessions import SessionStore
from services.prompt.view import TurnView
from services.scripts.types import ScriptFault
from services.scripts.values import Json

MOST_MESSAGES = 1_000
"""One call gives no more messages than this, and no more text than the next; what does not fit is left out."""
MOST_BYTES = 256 * 1024

QUERY_CHARACTERS = 1_000
"""What stands after these in a search does not count: a script may search for all that a user wrote."""

_SEARCHED_MESSAGES = 5_000
_FARTHEST = 2**40
"""More messages than any session has, and few enough to be added to."""

JsonObject = dict[str, Json]


class Branches:
    """Which messages a script means."""

    def __init__(self, view: TurnView, messages: MessageStore, sessions: SessionStore) -> None:
        self._view = view
        self._messages = messages
        self._sessions = sessions
        self._own: Branch | None = None

    async def own(self) -> Branch:
        """What ends with the user's message of this run, or with its reply once that is there."""
        if self._own is None:
            record = self._view.record
            self._own = Branch(record.session_id, record.owner_id, await self._leaf())
        return self._own

    async def of(self, session_id: str | None) -> Branch:
        """The active branch of that session, or of this one for None. Raises `ScriptFault`."""
        wanted = None if session_id is None else id_or_none(session_id)
        record = self._view.record
        if session_id is None or wanted == record.session_id:
            return await self.own()
        session = await self._sessions.get(SessionId(wanted), record.owner_id) if wanted else None
        if session is None:
            raise ScriptFault("There is no session with that id.", "ValueError")
        return Branch(session.id, session.owner_id, session.active_leaf_id)

    async def _leaf(self) -> MessageId:
        record = self._view.record
        if self._view.reply is None:
            return record.user_message_id
        reply = record.reply_message_id or await self._messages.reply_of(record.id, record.user_message_id)
        return reply or record.user_message_id


class ConversationFunctions:
    """Reads messages. One call gives at most 1,000 of them and 256 KiB of text."""

    def __init__(self, view: TurnView, branches: Branches, messages: MessageStore) -> None:
        self._view = view
        self._branches = branches
        self._messages = messages
        self.functions = (
            self.get_message_count,
            self.get_recent_messages,
            self.get_raw_recent_messages,
            self.get_message_range,
            self.get_conversation_history,
            self.get_conversation_summary,
            self.get_persona_info,
            self.get_user_message,
            self.get_ai_response,
            self.search_messages,
        )

    async def get_message_count(self, session_id: str | None) -> int:
        """How many messages the branch has."""
        return (await self._messages.extent(await self._branches.of(session_id))).messages

    async def get_recent_messages(self, limit: int, session_id: str | None) -> str:
        """The newest messages as lines; hours and minutes are UTC's."""
        lines = await self._newest(session_id, limit=limit)
        return "\n".join(
            f"[{line.created_at.astimezone(UTC):%H:%M}] {line.role.capitalize()}: {line.content}" for line in lines
        )

    async def get_raw_recent_messages(self, limit: int, session_id: str | None) -> list[JsonObject]:
        """The newest messages, oldest first."""
        return as_objects(await self._newest(session_id, limit=limit))

    async def get_message_range(self, start: int, end: int | None, session_id: str | None) -> list[JsonObject]:
        """Messages by position; where not all of them fit, the first ones."""
        start = at_least_0("start", start)
        limit = MOST_MESSAGES if end is None else at_least_0("end", end) - start
        branch = await self._branches.of(session_id)
        return as_objects(
            await self._messages.lines(branch, first=start, limit=within(limit, MOST_MESSAGES), max_bytes=MOST_BYTES)
        )

    async def get_conversation_history(self, limit: int, offset: int, session_id: str | None) -> list[JsonObject]:
        """Messages before the newest `offset`, oldest first; where not all of them fit, the newest of these."""
        return as_objects(await self._newest(session_id, limit=limit, skip=at_least_0("offset", offset)))

    async def get_conversation_summary(self, session_id: str | None) -> str:
        """Empty text: sessions have no summaries yet. The session must be the owner's all the same."""
        await self._branches.of(session_id)
        return ""

    async def get_persona_info(self) -> JsonObject:
        """The persona that answers in this run, which may be another than the session's."""
        persona = self._view.casting.persona
        if persona is None:
            return {}
        return {"name": persona.name, "description": persona.description, "mode": persona.mode}

    async def get_user_message(self) -> str:
        """What the user says in this turn."""
        return cut(self._view.user_message)

    async def get_ai_response(self) -> str:
        """This turn's reply, or the newest one before it; empty if there is none."""
        if self._view.reply is not None:
            return cut(self._view.reply)
        return cut(await self._messages.newest_reply(await self._branches.own(), steps=MOST_MESSAGES) or "")

    async def search_messages(self, query: str, limit: int, session_id: str | None) -> list[JsonObject]:
        """Messages that have any of the words, among the newest 5,000; the best first."""
        limit = within(at_least_0("limit", limit), MOST_MESSAGES)
        branch = await self._branches.of(session_id)
        sought = query[:QUERY_CHARACTERS].strip()
        if not sought:
            return []
        found = await self._messages.search(branch, sought, steps=_SEARCHED_MESSAGES, limit=limit, max_bytes=MOST_BYTES)
        return as_objects(found)

    async def _newest(self, session_id: str | None, *, limit: int, skip: int = 0) -> list[Line]:
        limit = within(at_least_0("limit", limit), MOST_MESSAGES)
        branch = await self._branches.of(session_id)
        return await self._messages.newest_lines(
            branch, skip=within(skip, _FARTHEST), limit=limit, max_bytes=MOST_BYTES
        )


def as_objects(lines: Iterable[Line]) -> list[JsonObject]:
    """Messages as scripts know them."""
    return [
        {
            "id": str(line.id),
            "role": line.role,
            "content": cut(line.content),
            "created_at": line.created_at.isoformat(),
        }
        for line in lines
    ]


def at_least_0(name: str, value: int) -> int:
    """`value`, which the script gave as `name`. Raises `ScriptFault` if it is negative."""
    if value < 0:
        raise ScriptFault(f"{name} must not be negative", "ValueError")
    return value


def within(value: int, most: int) -> int:
    """`value`, or the nearest number from 0 to `most`."""
    return max(0, min(value, most))


def cut(text: str) -> str:
    """As much of `text` as one call may give."""
    return text if len(text) * 4 <= MOST_BYTES else text.encode()[:MOST_BYTES].decode(errors="ignore")


def id_or_none(text: str) -> UUID | None:
    """The id that `text` is; None if it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None
