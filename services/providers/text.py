"""Model text made safe to store: valid Unicode without NUL, whatever the server cut or escaped."""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# PostgreSQL stores neither NUL nor lone surrogates, and JSON can carry both as \u escapes.
_SUSPECT = re.compile("[\x00\ud800-\udfff]")


class TextCleaner:
    """Cleans one stream of text; the joined output does not depend on where the pieces were cut."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text so far is ready to be shown; a high surrogate waits for its other half."""
        if not self._held and ((piece.isascii() and "\0" not in piece) or not _SUSPECT.search(piece)):
            return piece
        piece = self._held + piece
        self._held = ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            self._held = piece[-1]
            piece = piece[:-1]
        return clean_text(piece)

    def end(self) -> str:
        """What was still held back."""
        held, self._held = self._held, ""
        return REPLACEMENT if held else ""


def clean_text(text: str) -> str:
    """`text` with surrogate pairs joined, and NUL and lone surrogates replaced by U+FFFD."""
    if not _SUSPECT.search(text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", REPLACEMENT)
