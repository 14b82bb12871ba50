"""The files of messages: taken when a message is sent, told to the model whenever it is asked."""

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from db.ids import FileId, SessionId, UserId
from db.records import ContextItemRecord, FileRecord
from db.stores.accepting import NewUserMessage
from services.agent.types import ChatMessage, ImagePart, ModelMessage
from services.context.attachments import Attachment, Shown, told
from services.context.items import WORDLESS, Item
from services.context.pictures import picture_tokens
from services.context.tokens import MESSAGE_OVERHEAD, TokenCounter
from services.errors import NotFound
from services.files.service import FileService, kind_of_file

_MOST_PICTURES = 20
_MOST_PICTURE_BYTES = 8_388_608
"""Of all pictures of one call, the newest first: a few megabytes of them would hold up everybody's events."""

_CHARACTERS_PER_TOKEN = 8
"""More than any ordinary text has."""
_SEAM = 20
"""Tokens that joining the user's words and the files may add, or what stands where there are no words."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The files of a message that is to be stored: as its parts, as layer 1 keeps them, and their tokens."""

    parts: list[dict[str, Any]]
    files: list[dict[str, Any]]
    tokens: int

    def with_words(self, words: NewUserMessage) -> NewUserMessage:
        """The message with both."""
        is_worded = bool(words.content.strip())
        text = [{"type": "text", "text": words.content}] if is_worded else []
        body = {"role": "user", "text": words.content if is_worded else WORDLESS, "files": self.files}
        tokens = MESSAGE_OVERHEAD + words.token_count + self.tokens
        told = ContextItemRecord(body, tokens)
        return replace(words, parts=[*text, *self.parts], told=told, context_tokens=tokens)


class Attachments:
    """What comes with messages. `tokens_each` of a document are told at once, twice that of all of a message."""

    def __init__(self, files: FileService, tokens: TokenCounter, *, tokens_each: int) -> None:
        self._files = files
        self._tokens = tokens
        self._tokens_each = tokens_each

    async def take(self, owner_id: UserId, session_id: SessionId, file_ids: Sequence[FileId]) -> Taken | None:
        """The files that come with a message; None if there are none. Raises `NotFound`, naming one that is not there.

        The tokens are never fewer than what the model is told will have.
        """
        if not file_ids:
            return None
        records = await self._files.attachable(owner_id, session_id, file_ids)
        each = min(self._tokens_each, 2 * self._tokens_each // len(records))
        attachments = [await self._attachment(file, each) for file in records]
        beginnings = await self._files.beginnings(owner_id, session_id, {one.id: one.excerpt for one in attachments})
        pictures = sum(picture_tokens(one.width or 1, one.height or 1) for one in attachments if one.kind == "image")
        ids = frozenset(one.id for one in attachments)
        variants = (Shown(beginnings), Shown({}, gone=ids), Shown(beginnings, unseen=ids))
        words = [await self._tokens.count(told(attachments, shown)) for shown in variants]
        return Taken(
            [_part(one) for one in attachments],
            [one.stored() for one in attachments],
            max(words) + pictures + _SEAM,
        )

    async def tell(self, owner_id: UserId, session_id: SessionId, items: Sequence[Item]) -> tuple[ModelMessage, ...]:
        """What the model is told, with what is in the files that the items name."""
        if not any(item.files for item in items):
            return tuple(item.message for item in items)
        return await _Telling(self._files, owner_id, session_id).all(items)

    async def _attachment(self, file: FileRecord, most_tokens: int) -> Attachment:
        excerpt = 0
        if file.text_state == "ready" and file.characters:
            limit = most_tokens * _CHARACTERS_PER_TOKEN
            part = await self._files.read_text(file.owner_id, file.session_id, file.id, offset=0, limit=limit)
            excerpt = await self._fitting(part.text, most_tokens)
        return Attachment(
            file.id,
            file.name,
            file.media_type,
            kind_of_file(file),
            file.size,
            file.characters,
            excerpt,
            file.text_note,
            file.width,
            file.height,
        )

    async def _fitting(self, text: str, most: int) -> int:
        """How many characters from the beginning have at most so many tokens."""
        length = len(text)
        while length and (count := await self._tokens.count(text[:length])) > most:
            length = min(length * most // count, length * 9 // 10)
        return length


class _Telling:
    """Fills in, for one call of a model, what is in the files of its messages."""

    def __init__(self, files: FileService, owner_id: UserId, session_id: SessionId) -> None:
        self._files = files
        self._owner_id = owner_id
        self._session_id = session_id
        self._room = _MOST_PICTURE_BYTES
        self._places = _MOST_PICTURES

    async def all(self, items: Sequence[Item]) -> tuple[ModelMessage, ...]:
        """The messages, told from the newest to the oldest, so that the newest pictures are those that are shown."""
        named = [one for item in items for one in _attachments_of(item)]
        present = await self._files.present(self._owner_id, self._session_id, [one.id for one in named])
        wanted = {one.id: one.excerpt for one in named if one.id in present}
        beginnings = await self._files.beginnings(self._owner_id, self._session_id, wanted)
        gone = frozenset(one.id for one in named) - present
        messages = [await self._message(item, beginnings, gone) for item in reversed(items)]
        return tuple(reversed(messages))

    async def _message(self, item: Item, beginnings: Mapping[FileId, str], gone: frozenset[FileId]) -> ModelMessage:
        attachments = _attachments_of(item)
        if not attachments or not isinstance(item.message, ChatMessage):
            return item.message
        looked_at = [one for one in attachments if one.kind == "image" and one.id not in gone]
        pictures = {one.id: await self._picture(one) for one in looked_at}
        unseen = frozenset(file_id for file_id, picture in pictures.items() if picture is None)
        text = told(attachments, Shown(beginnings, gone, unseen))
        return replace(
            item.message,
            content=f"{item.message.content}\n\n{text}",
            images=tuple(picture for picture in pictures.values() if picture is not None),
        )

    async def _picture(self, attachment: Attachment) -> ImagePart | None:
        """None if there is no room for it among what is shown."""
        if self._places == 0:
            return None
        try:
            image = await self._files.image_bytes(self._owner_id, self._session_id, attachment.id)
        except NotFound:
            return None
        if len(image.data) > self._room:
            return None
        self._places -= 1
        self._room -= len(image.data)
        return ImagePart(image.media_type, await asyncio.to_thread(_base64, image.data))


def _attachments_of(item: Item) -> list[Attachment]:
    return [Attachment.read(file) for file in item.files]


def _part(attachment: Attachment) -> dict[str, Any]:
    return {
        "type": "file",
        "file_id": str(attachment.id),
        "name": attachment.name,
        "media_type": attachment.media_type,
        "kind": attachment.kind,
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
