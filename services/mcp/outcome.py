"""What a tool answered, as text and pictures of bounded size."""

import base64
import binascii
from collections.abc import Iterator, Sequence

import orjson
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from services.mcp.types import ToolImage, ToolOutcome
from services.providers.text import clean_text

_MOST_IMAGES = 8
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def outcome_of(result: CallToolResult, *, longest: int) -> ToolOutcome:
    """The result as a model and a person can be told it; `longest`: characters of text."""
    blocks = result.content
    images = tuple(_images(blocks))
    text = "\n".join(line for block in blocks if (line := _line(block)) is not None)
    if not text and result.structured_content is not None:
        text = orjson.dumps(result.structured_content).decode()
    is_truncated = len(text) > longest
    return ToolOutcome(clean_text(text[:longest]), bool(result.is_error), is_truncated, images)


def _line(block: ContentBlock) -> str | None:
    match block:
        case TextContent(text=text):
            return text
        case ImageContent():
            return f"[a picture: {_kind(block.mime_type)}]"
        case AudioContent():
            return f"[a sound: {_kind(block.mime_type)}]"
        case ResourceLink():
            return f"[a link: {block.title or block.name} <{block.uri}>]"
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case EmbeddedResource(resource=BlobResourceContents() as blob):
            return f"[a file: {_kind(blob.mime_type)} <{blob.uri}>]"
        case _:
            return None


def _kind(mime_type: str | None) -> str:
    return (mime_type or "of unknown type")[:100]


def _images(blocks: Sequence[ContentBlock]) -> Iterator[ToolImage]:
    taken = 0
    for block in blocks:
        if isinstance(block, ImageContent) and block.mime_type in _IMAGE_TYPES and taken < _MOST_IMAGES:
            try:
                data = base64.b64decode(block.data, validate=True)
            except (binascii.Error, ValueError):
                continue
            taken += 1
            yield ToolImage(block.mime_type, data)
