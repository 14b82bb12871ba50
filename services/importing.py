"""Taking sessions in from documents: validated whole, stored whole or not at all."""

import asyncio
import binascii
import os
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from db.ids import FileId, MessageId, SessionId, UserId, new_id
from db.records import ContextItemRecord, SessionRecord
from db.stores.forks import ForkStore
from db.stores.modules import ModuleStore
from db.stores.sessions import SessionStore
from db.stores.transfer import NewMemory, NewMessage, NewSession, Result, Summary, TransferStore, Variable
from services.audit import AuditLog
from services.connections.directory import ConnectionDirectory
from services.context.items import Item, decode, said_in
from services.context.tokens import TokenCounter
from services.conversation.running import counted
from services.errors import ColloquyError, InvalidRequest
from services.files.service import FileService
from services.providers.controls import validate_controls

_COUNTED_AT_ONCE = 20
"""Messages between two looks at what else is to be done."""


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message of a document. Ids are the document's own."""

    id: str
    parent_id: str | None
    fields: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    context: Sequence[ContextItemRecord]
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """A file of a document, in base64; None if it was left out."""

    id: UUID
    name: str
    data: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """A session as it stands in a document."""

    session: Mapping[str, Any]
    created_at: datetime
    active: str | None
    messages: Sequence[ImportedMessage]
    variables: Sequence[Variable]
    results: Sequence[Result]
    memories: Sequence[Mapping[str, Any]]
    files: Sequence[ImportedFile]


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """What became of a document, and what is not here as it was elsewhere."""

    session: SessionRecord
    warnings: Sequence[str]


class SessionImporter:
    """Makes sessions of documents. The same document makes another session each time."""

    def __init__(
        self,
        *,
        store: TransferStore,
        sessions: SessionStore,
        modules: ModuleStore,
        forks: ForkStore,
        files: FileService,
        tokens: TokenCounter,
        connections: ConnectionDirectory,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._modules = modules
        self._forks = forks
        self._files = files
        self._tokens = tokens
        self._connections = connections
        self._audit = audit

    async def put(self, owner_id: UserId, document: Document) -> ImportedSession:
        """Store a session as it was, under new ids; all of it or nothing.

        Tokens are counted anew, and files go the way of uploads: pictures are painted anew. Personas and modules are
        found by name. Raises `InvalidRequest` with the place of the fault, `UnknownControl`, `InvalidControl`, and what
        uploading a file raises.
        """
        contents = await asyncio.to_thread(_looked_through, document)
        new, warnings = await self._session(owner_id, document)
        session = await self._store.write(owner_id, new)
        if document.session["persona"] and session.persona_id is None:
            warnings.append(f"There is no persona called {document.session['persona']} here.")
        try:
            await self._upload(owner_id, session.id, document.files, contents, warnings)
        except BaseException:
            async with self._files.going_with(owner_id, session.id):
                await self._sessions.delete(session.id, owner_id, version=None)
            raise
        await self._audit.note(owner_id, "session.import", session.id, messages=len(document.messages))
        return ImportedSession(session, warnings)

    async def _session(self, owner_id: UserId, document: Document) -> tuple[NewSession, list[str]]:
        said = document.messages
        ids = dict(zip((message.id for message in said), _ordered_ids(len(said)), strict=True))
        active = document.active or (said[-1].id if said else None)
        fields, warnings = await self._fields(owner_id, document)
        memories = zip(_ordered_ids(len(document.memories)), document.memories, strict=True)
        new = NewSession(
            SessionId(new_id()),
            fields,
            document.created_at,
            None if active is None else ids[active],
            await self._messages(said, ids),
            document.variables,
            document.results,
            [NewMemory(id, **memory) for id, memory in memories],
        )
        return new, [*warnings, *await self._missing_modules(owner_id, document)]

    async def _fields(self, owner_id: UserId, document: Document) -> tuple[dict[str, Any], list[str]]:
        fields = dict(document.session) | {"controls": dict(validate_controls(document.session["controls"]))}
        connection: str | None = document.session["connection"]
        if connection is None or await self._connections.knows(owner_id, connection):
            return fields, []
        return fields | {"connection": None}, [f"The model server {connection} is not configured here."]

    async def _missing_modules(self, owner_id: UserId, document: Document) -> list[str]:
        names = list(dict.fromkeys(one.module for one in (*document.variables, *document.results)))
        known = {module.name for module in await self._modules.get_by_names(owner_id, names)}
        missing = [name for name in names if name not in known]
        return [f"There is no module called {name} here; what it remembered is left out." for name in missing]

    async def _messages(self, said: Sequence[ImportedMessage], ids: Mapping[str, MessageId]) -> list[NewMessage]:
        messages: list[NewMessage] = []
        for position, message in enumerate(said):
            messages.append(await self._message(message, ids))
            if position % _COUNTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # others have something to do, too
        return messages

    async def _message(self, message: ImportedMessage, ids: Mapping[str, MessageId]) -> NewMessage:
        fields = dict(message.fields)
        fields["parts"] = [_with_new_id(part, ids) for part in fields["parts"]]
        items = [await self._item(_with_new_id(item.body, ids), item.token_count) for item in message.context]
        rest = fields["content"][said_in([decode(item) for item in items]) :] if fields["role"] == "assistant" else ""
        unsaid = await self._tokens.count_message(rest) if rest.strip() else 0
        summary = message.summary
        return NewMessage(
            ids[message.id],
            None if message.parent_id is None else ids[message.parent_id],
            fields,
            await self._tokens.count(fields["content"]),
            sum(item.token_count for item in items) + unsaid if items else None,
            message.created_at,
            message.updated_at,
            items,
            summary,
            await self._tokens.count_message(summary.text) if summary else 0,
        )

    async def _item(self, body: dict[str, Any], told: int) -> ContextItemRecord:
        """What files cost is not counted here, so the document is believed if it says more."""
        item: Item = await counted(self._tokens, decode(ContextItemRecord(body, 0)).message)
        return ContextItemRecord(body, max(item.tokens, told) if body.get("files") else item.tokens)

    async def _upload(
        self,
        owner_id: UserId,
        session_id: SessionId,
        files: Sequence[ImportedFile],
        contents: Sequence[bytes | None],
        warnings: list[str],
    ) -> None:
        copies: dict[FileId, FileId] = {}
        for position, (file, content) in enumerate(zip(files, contents, strict=True)):
            if content is None:
                warnings.append(f"The file {file.name} is not in the document.")
                continue
            try:
                kept = await self._files.upload(owner_id, session_id, file.name, _pieces(content))
            except ColloquyError as error:
                error.details["field"] = ("files", position)
                raise
            copies[FileId(file.id)] = kept.id
        if copies:
            await self._forks.refer_to(session_id, copies)


def _looked_through(document: Document) -> list[bytes | None]:
    """What its files hold, if the document is sound. Raises `InvalidRequest`."""
    _check_tree(document)
    return [_content(position, file) for position, file in enumerate(document.files)]


def _check_tree(document: Document) -> None:
    """Every message once, behind one that is there, and none behind itself."""
    places = {message.id: position for position, message in enumerate(document.messages)}
    for position, message in enumerate(document.messages):
        if places[message.id] != position:
            raise InvalidRequest(
                f"The message {message.id} is there twice.", field=("messages", places[message.id], "id")
            )
        if message.parent_id is not None and message.parent_id not in places:
            raise InvalidRequest("There is no message with that id.", field=("messages", position, "parent_id"))
    if document.active is not None and document.active not in places:
        raise InvalidRequest("There is no message with that id.", field=("session", "active_message_id"))
    parents = {message.id: message.parent_id for message in document.messages}
    sound: set[str] = set()
    for message in document.messages:
        walked: dict[str, None] = {}
        at: str | None = message.id
        while at is not None and at not in sound:
            if at in walked:
                raise InvalidRequest("This message stands behind itself.", field=("messages", places[at], "parent_id"))
            walked[at] = None
            at = parents[at]
        sound.update(walked)


def _content(position: int, file: ImportedFile) -> bytes | None:
    if file.data is None:
        return None
    try:
        return b64decode(file.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("This is not base64.", field=("files", position, "data")) from error


def _with_new_id(value: Mapping[str, Any], ids: Mapping[str, MessageId]) -> dict[str, Any]:
    """A part or item with the new id of the message that it names; a name of nothing here is dropped."""
    named = value.get("message_id")
    if named is None:
        return dict(value)
    known = ids.get(named) if isinstance(named, str) else None
    rest = {name: part for name, part in value.items() if name != "message_id"}
    return rest if known is None else rest | {"message_id": str(known)}


def _ordered_ids(count: int) -> list[MessageId]:
    """Ids of this moment that sort as they come."""
    high = new_id().int >> 64 << 64
    return [
        MessageId(UUID(int=high | 0b10 << 62 | position << 32 | int.from_bytes(os.urandom(4), "big")))
        for position in range(count)
    ]


async def _pieces(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
