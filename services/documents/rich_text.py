"""Rich Text Format (.rtf), as far as its text goes."""

import re

from services.documents.words import Unreadable, Words

_TOKEN = re.compile(rb"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z'])|([{}])|[\r\n]+|([^\\{}\r\n]+)")
_NOT_TEXT = frozenset(
    b"fonttbl colortbl stylesheet info pict object listtable listoverridetable themedata datastore xmlnstbl rsidtbl "
    b"generator header footer fldinst".split()
)
_SIGNS = {
    b"par": "\n",
    b"line": "\n",
    b"row": "\n",
    b"page": "\n\n",
    b"tab": "\t",
    b"cell": "\t",
    b"emdash": "\u2014",
    b"endash": "\u2013",
    b"lquote": "\u2018",
    b"rquote": "\u2019",
    b"ldblquote": "\u201c",
    b"rdblquote": "\u201d",
    b"bullet": "\u2022",
}
_ESCAPED = {b"\\": "\\", b"{": "{", b"}": "}", b"~": "\u00a0", b"_": "-", b"\n": "\n", b"\r": "\n"}
_DEEPEST = 1_000


def read_rtf(data: bytes, words: Words) -> None:
    """Write the text of the document. Raises `Unreadable`, `Enough`."""
    _Rtf(words).read(data)


class _Rtf:
    """Where the reader is: in which groups, and whether these are to be read."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._encoding = "cp1252"
        self._skipping = False
        self._after_unicode = 1  # how many signs for old readers follow a sign of Unicode
        self._to_skip = 0
        self._groups: list[tuple[bool, int]] = []
        self._bytes = bytearray()  # signs of a code page may be of several bytes

    def read(self, data: bytes) -> None:
        for token in _TOKEN.finditer(data):
            word, number, code, sign, brace, text = token.groups()
            if code is not None:
                self._byte(int(code, 16))
                continue
            if word is None and brace is None and sign is None and text is None:
                continue
            self._flush()
            if brace is not None:
                self._brace(brace)
            elif word is not None:
                self._word(word, None if number is None else int(number))
            elif sign is not None:
                self._sign(sign)
            else:
                self._put(text.decode(self._encoding, "replace"))
        self._flush()

    def _brace(self, brace: bytes) -> None:
        if brace == b"{":
            if len(self._groups) > _DEEPEST:
                raise Unreadable("Its groups are nested too deeply.")
            self._groups.append((self._skipping, self._after_unicode))
        elif self._groups:
            self._skipping, self._after_unicode = self._groups.pop()

    def _word(self, word: bytes, number: int | None) -> None:
        match word:
            case b"u" if number is not None:
                self._to_skip = 0
                self._put(_character(number))
                self._to_skip = self._after_unicode
            case b"uc":
                self._after_unicode = min(max(number or 0, 0), 16)
            case b"ansicpg" if number:
                self._encoding = _code_page(number)
            case _ if word in _NOT_TEXT:
                self._skipping = True
            case _ if word in _SIGNS:
                self._put(_SIGNS[word])
            case _:
                pass

    def _sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._skipping = True
        elif sign in _ESCAPED:
            self._put(_ESCAPED[sign])

    def _byte(self, byte: int) -> None:
        if self._to_skip:
            self._to_skip -= 1
        else:
            self._bytes.append(byte)

    def _flush(self) -> None:
        if self._bytes:
            self._put(bytes(self._bytes).decode(self._encoding, "replace"))
            self._bytes.clear()

    def _put(self, text: str) -> None:
        skipped = min(self._to_skip, len(text))
        self._to_skip -= skipped
        if not self._skipping:
            self._words.write(text[skipped:])


def _character(number: int) -> str:
    # Written as a signed number of 16 bits.
    code = number & 0xFFFF
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)


def _code_page(number: int) -> str:
    try:
        return f"cp{number}" if b"x".decode(f"cp{number}") == "x" else "cp1252"
    except (LookupError, UnicodeError):
        return "cp1252"
