"""Lists in pages: opaque cursors, and a Link header to the next page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from api.schemas.model import Answer

T = TypeVar("T")


class Page(Answer, Generic[T]):
    """A part of a list, newest first."""

    items: list[T]
    next_cursor: str | None = Field(description="Give it as `cursor` to read on; null on the last page.")


def cursor_of(last: UUID | None) -> str | None:
    """The cursor of the page that begins after the row `last`."""
    return None if last is None else urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Name the next page in the Link header (RFC 8288), if there is one."""
    if cursor is not None:
        response.headers["link"] = f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'


def _row_of(cursor: object) -> object:
    if not isinstance(cursor, str):
        return cursor
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise ValueError("is not a cursor that this service gave out")
    return UUID(bytes=raw)


Before = Annotated[
    UUID | None,
    BeforeValidator(_row_of),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}),
    Query(alias="cursor", description="The `next_cursor` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many items at most.")]
