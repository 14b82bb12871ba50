"""Text whose encoding nobody tells."""

import codecs

from services.documents.kinds import HEAD, utf_16_without_a_mark
from services.documents.words import Unreadable, Words

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ENOUGH_TO_GUESS = 262_144


def read_plain(data: bytes, words: Words) -> str | None:
    """Write the text; what is to be said of its encoding, if that is a guess. Raises `Unreadable`, `Enough`."""
    text, note = decoded(data)
    words.write(text.replace("\r\n", "\n").replace("\r", "\n"))
    return note


def decoded(data: bytes) -> tuple[str, str | None]:
    """The text, and a note where the encoding was guessed. Raises `Unreadable`."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode(data, encoding), None
    encoding = utf_16_without_a_mark(data[:HEAD])  # is also UTF-8, with NULs
    if encoding is None:
        try:
            return data.decode(), None
        except UnicodeDecodeError:
            encoding = _guess(data[:_ENOUGH_TO_GUESS])
    return _decode(data, encoding), f"The encoding is not told; it was read as {encoding}."


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, errors="replace")
    except LookupError as error:
        raise Unreadable(f"The encoding {encoding} is not known here.") from error


def _guess(data: bytes) -> str:
    # Dear to import, and rarely needed.
    from charset_normalizer import from_bytes  # noqa: PLC0415

    best = from_bytes(data).best()
    if best is None:
        raise Unreadable("It is not text in any encoding that could be recognised.")
    return best.encoding
