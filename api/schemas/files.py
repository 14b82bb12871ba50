"""Files of sessions over REST."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer
from api.schemas.pages import Page
from db.records import FileRecord, TextState
from services.documents.kinds import FileKind
from services.files.service import TextSlice, kind_of_file


class File(Answer):
    """A file of a session."""

    id: UUID
    session_id: UUID
    name: str = Field(description="As it was sent, without folders and without what cannot be seen.")
    media_type: str = Field(description="What the file is by its content.")
    kind: FileKind = Field(description="image: models can look at it; document: they can read it.")
    size: int = Field(description="Bytes that are kept; a picture is painted anew and has others than were sent.")
    sha256: str = Field(description="Of the bytes that are kept.")
    text_state: TextState = Field(description="Whether there is text of it: none, waiting, ready or failed.")
    text_note: str | None = Field(description="Why there is no text, or what is to be known of it.")
    characters: int = Field(description="The length of its text.")
    token_count: int = Field(description="An estimate of the tokens of its text.")
    width: int | None = Field(description="Of a picture, in pixels.")
    height: int | None
    url: str = Field(description="Where it can be fetched.")
    created_at: datetime

    @classmethod
    def of(cls, record: FileRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            session_id=record.session_id,
            name=record.name,
            media_type=record.media_type,
            kind=kind_of_file(record),
            size=record.size,
            sha256=record.sha256,
            text_state=record.text_state,
            text_note=record.text_note,
            characters=record.characters,
            token_count=record.token_count,
            width=record.width,
            height=record.height,
            url=f"/api/sessions/{record.session_id}/files/{record.id}",
            created_at=record.created_at,
        )


class FilePage(Page[File]):
    """Files of a session, newest first."""


class FileText(Answer):
    """A part of the text of a file."""

    file_id: UUID
    text: str
    offset: int = Field(description="Characters before this part.")
    next_offset: int | None = Field(description="Give it as `offset` to read on; null at the end.")
    characters: int = Field(description="The length of all its text.")
    note: str | None = Field(description="What is to be known of the reading: a guessed encoding, pages left out.")

    @classmethod
    def of(cls, part: TextSlice) -> Self:
        """What a client sees of the part."""
        return cls(
            file_id=part.file.id,
            text=part.text,
            offset=part.offset,
            next_offset=part.next_offset,
            characters=part.file.characters,
            note=part.file.text_note,
        )
