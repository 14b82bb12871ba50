"""Sessions as documents: one that can be taken in again without loss, and one for people to read."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from db.ids import MessageId, SessionId, UserId
from db.records import FileRecord, MessageRecord, SessionRecord
from db.stores.messages import MessageStore, Snapshot
from db.stores.transfer import TransferStore, WholeMessage
from services.audit import AuditLog
from services.errors import NotFound, no_session
from services.files.service import FileService

FORMAT = "colloquy-session"
VERSION = 1

_AT_ONCE = 100
"""Messages that are in memory at a time."""
_SETTINGS = ("title", "title_is_given", "pinned", "connection", "model", "controls", "metadata", "tools", "created_at")
_OF_MESSAGE = (
    "id",
    "parent_id",
    "role",
    "content",
    "parts",
    "finish_reason",
    "provider",
    "model",
    "metadata",
    "created_at",
    "updated_at",
)
_OF_MEMORY = ("content", "first_message", "last_message", "metadata", "created_at")


@dataclass(frozen=True, slots=True)
class Exported:
    """A session that is to be written out."""

    session: SessionRecord
    persona: str | None


class SessionExporter:
    """Writes sessions out, piece by piece: neither a long one nor a slow reader costs memory or a connection."""

    def __init__(
        self, store: TransferStore, messages: MessageStore, files: FileService, audit: AuditLog, *, inline_bytes: int
    ) -> None:
        self._store = store
        self._messages = messages
        self._files = files
        self._audit = audit
        self._inline_bytes = inline_bytes

    async def open(self, owner_id: UserId, session_id: SessionId) -> Exported:
        """The session, as far as it is small. Raises `NotFound`."""
        found = await self._store.session(session_id, owner_id)
        if found is None:
            raise no_session()
        await self._audit.note(owner_id, "session.export", session_id)
        return Exported(*found)

    async def json(self, exported: Exported) -> AsyncGenerator[bytes, None]:
        """All of it as one JSON document, messages in the order in which they were made.

        Of files those are within that fit; of the others there is a note.
        """
        session = exported.session
        head = {name: getattr(session, name) for name in _SETTINGS} | {
            "persona": exported.persona,
            "active_message_id": session.active_leaf_id,
        }
        yield b'{"format":%b,"version":%d,"exported_at":%b,"session":%b,"messages":[' % (
            _dumped(FORMAT),
            VERSION,
            _dumped(datetime.now(UTC)),
            _dumped(head),
        )
        separator = b""
        async for message in self._whole(session):
            yield separator + _dumped(_as_object(message))
            separator = b","
        remains = await self._store.remains(session.id, session.owner_id)
        memories = [{name: getattr(memory, name) for name in _OF_MEMORY} for memory in remains.memories]
        rest = {"variables": remains.variables, "results": remains.results, "memories": memories}
        yield b"]," + _dumped(rest)[1:-1] + b',"files":['
        left, separator = self._inline_bytes, b""
        for file in remains.files:
            data = await self._data(file, left)
            left -= file.size if data is not None else 0
            yield separator + _dumped(_file_object(file, data))
            separator = b","
        yield b"]}"

    async def markdown(self, exported: Exported) -> AsyncGenerator[bytes, None]:
        """The active branch as a text for people, oldest first."""
        session = exported.session
        title = session.title or "Untitled"
        yield f"# {title}\n\n*{_when(session.created_at)}, with {exported.persona or 'a model'}*\n".encode()
        async for message in self._branch(session):
            yield _as_text(message, exported.persona).encode()

    async def _whole(self, session: SessionRecord) -> AsyncGenerator[WholeMessage, None]:
        after: MessageId | None = None
        while page := await self._store.messages(session.id, session.owner_id, after=after, limit=_AT_ONCE):
            for message in page:
                yield message
            after = page[-1].message.id

    async def _branch(self, session: SessionRecord) -> AsyncGenerator[MessageRecord, None]:
        """The active branch, oldest first. It is walked twice: from its end for where pages begin, then back."""
        starts: list[MessageId | None] = [None]
        while (page := await self._page(session, starts[-1])).has_more:
            starts.append(page.messages[-1].id)
        for start in reversed(starts):
            for message in reversed((await self._page(session, start)).messages):
                yield message

    async def _page(self, session: SessionRecord, before: MessageId | None) -> Snapshot:
        leaf = session.active_leaf_id
        found = await self._messages.page(session.id, session.owner_id, before=before, limit=_AT_ONCE, branch=leaf)
        return found or Snapshot([], has_more=False, seq=0)

    async def _data(self, file: FileRecord, left: int) -> str | None:
        if file.size > left:
            return None
        try:
            _, path = await self._files.bytes_of(file.owner_id, file.session_id, file.id)
            return await asyncio.to_thread(lambda: b64encode(path.read_bytes()).decode())
        except (NotFound, FileNotFoundError):
            return None


def _as_object(whole: WholeMessage) -> dict[str, Any]:
    message = {name: getattr(whole.message, name) for name in _OF_MESSAGE}
    items = [item.body | {"token_count": item.token_count} for item in whole.items]
    return message | {"stopped_by": whole.stopped_by, "context": items, "summary": whole.summary}


def _file_object(file: FileRecord, data: str | None) -> dict[str, Any]:
    note = None if data is not None else "left out: it is missing, or all files together would be too large"
    own = {name: getattr(file, name) for name in ("id", "name", "media_type", "size", "sha256", "created_at")}
    return own | {"data": data, "note": note}


def _as_text(message: MessageRecord, persona: str | None) -> str:
    who = {"user": "You", "assistant": persona or "Reply", "system": "Note"}[message.role]
    stopped = {"interrupted": " (stopped)", "error": " (broken off)"}.get(message.finish_reason or "", "")
    tools = "".join(_tool_line(part) for part in message.parts if part.get("type") == "tool_call")
    return f"\n## {who}{stopped}\n\n*{_when(message.created_at)}*\n\n{tools}{message.content}\n"


def _tool_line(part: Mapping[str, Any]) -> str:
    return f"> used the tool `{part.get('name')}`\n\n"


def _when(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _dumped(value: object) -> bytes:
    return orjson.dumps(value, default=str)
