"""What a file is, by what is in it. Its name only tells one kind of text from another."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Reading = Literal["text", "html", "rtf", "pdf", "package", "legacy", "image", "none"]
"""How a file is read. A `package` is a ZIP archive, and only by looking further in one sees of what."""

FileKind = Literal["image", "document", "other"]
"""What can be done with a file: look at it, read it, or neither."""

HEAD = 4096
"""Bytes from the beginning that are enough to tell."""

_PDF_WITHIN = 1024  # readers of PDF take its mark anywhere in there


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is."""

    media_type: str
    reading: Reading


_BINARY = Kind("application/octet-stream", "none")

_MARKS = (
    (b"\x89PNG\r\n\x1a\n", Kind("image/png", "image")),
    (b"\xff\xd8\xff", Kind("image/jpeg", "image")),
    (b"GIF87a", Kind("image/gif", "image")),
    (b"GIF89a", Kind("image/gif", "image")),
    (b"PK\x03\x04", Kind("application/zip", "package")),
    (b"PK\x05\x06", Kind("application/zip", "package")),
    (b"{\\rtf", Kind("application/rtf", "rtf")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("application/x-ole-storage", "legacy")),
    (b"\x1f\x8b", Kind("application/gzip", "none")),
    (b"BZh", Kind("application/x-bzip2", "none")),
    (b"\xfd7zXZ\x00", Kind("application/x-xz", "none")),
    (b"7z\xbc\xaf\x27\x1c", Kind("application/x-7z-compressed", "none")),
    (b"Rar!\x1a\x07", Kind("application/vnd.rar", "none")),
    (b"\x7fELF", Kind("application/x-elf", "none")),
    (b"\x00\x01\x00\x00\x00", Kind("font/ttf", "none")),
    (b"OggS", Kind("application/ogg", "none")),
    (b"ID3", Kind("audio/mpeg", "none")),
    (b"fLaC", Kind("audio/flac", "none")),
    (b"SQLite format 3\x00", Kind("application/vnd.sqlite3", "none")),
)

_BY_NAME = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".py": "text/x-python",
    ".eml": "message/rfc822",
    ".ics": "text/calendar",
    ".vtt": "text/vtt",
}


def kind_of(head: bytes, name: str) -> Kind:
    """The kind of a file that begins with `head`, its first `HEAD` bytes or all of it."""
    for mark, kind in _MARKS:
        if head.startswith(mark):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind("image/webp", "image")
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return Kind("application/pdf", "pdf")
    if not looks_like_text(head):
        return _BINARY
    return _text_kind(head, name)


def looks_like_text(head: bytes) -> bool:
    """Whether nothing speaks against it: no NUL, but for the encodings that have them, and hardly any controls."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or utf_16_without_a_mark(head):
        return True
    if b"\0" in head:
        return False
    controls = sum(1 for byte in head if byte < 32 and byte not in b"\t\n\r\f\x1b\x08")
    return controls * 100 <= len(head)


def utf_16_without_a_mark(head: bytes) -> str | None:
    """The encoding of a text in which every other byte is NUL, as in UTF-16 of European languages."""
    head = head[: len(head) // 2 * 2]
    even, odd = head[::2].count(0), head[1::2].count(0)
    most, few = len(head) * 0.4, len(head) * 0.05
    if len(head) < 8:
        return None
    if odd > most and even < few:
        return "utf-16-le"
    return "utf-16-be" if even > most and odd < few else None


def _text_kind(head: bytes, name: str) -> Kind:
    beginning = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if beginning.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return Kind("text/html", "html")
    is_xml = beginning.startswith((b"<?xml", b"<!--", b"<!doctype svg"))
    if beginning.startswith(b"<svg") or (is_xml and b"<svg" in head):
        return Kind("image/svg+xml", "text")
    if beginning.startswith(b"<?xml") and b"<html" in head.lower():
        return Kind("application/xhtml+xml", "html")
    extension = PurePath(name).suffix.lower()
    if extension in (".html", ".htm", ".xhtml"):
        return Kind("text/html", "html")
    return Kind(_BY_NAME.get(extension, "text/plain"), "text")
