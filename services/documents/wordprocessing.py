"""Documents of Word (.docx)."""

import re

from services.documents.archive import Package
from services.documents.relations import Relations
from services.documents.words import Words

_HEADING = re.compile(r"heading ?([1-6])", re.IGNORECASE)
_NOTES = ("footnotes", "endnotes", "comments")


def read_wordprocessing(package: Package, part: str, words: Words) -> None:
    """Write the text of the document, then its notes. Raises `Unreadable`, `Enough`."""
    _Body(words).read(package, part)
    relations = Relations(package, part)
    for kind in _NOTES:
        for notes in relations.of_kind(kind):
            if notes in package:
                words.paragraph()
                _Body(words).read(package, notes)


class _Body:
    """Follows the elements of one part."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._in_text = False
        self._cells = 0
        self._fallbacks = 0

    def read(self, package: Package, part: str) -> None:
        package.parse(part, start=self._start, end=self._end, text=self._text)

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "Fallback":  # the same once more, for programs that do not know the first
            self._fallbacks += 1
        if self._fallbacks:
            return
        match element:
            case "t":
                self._in_text = True
            case "tab":
                self._words.write("\t")
            case "br" | "cr":
                self._words.write("\n")
            case "noBreakHyphen":
                self._words.write("-")
            case "pStyle" if level := _HEADING.fullmatch(attributes.get("val", "")):
                self._words.paragraph()
                self._words.write("#" * int(level[1]) + " ")
            case "tc":
                self._cells += 1
            case _:
                pass

    def _end(self, element: str) -> None:
        if element == "Fallback":
            self._fallbacks -= 1
        if self._fallbacks:
            return
        match element:
            case "t":
                self._in_text = False
            case "p" if self._cells:
                self._words.write(" ")
            case "p" | "tr":
                self._words.line()
            case "tc":
                self._cells -= 1
                self._words.write("\t")
            case "tbl":
                self._words.paragraph()
            case _:
                pass

    def _text(self, text: str) -> None:
        if self._in_text and not self._fallbacks:
            self._words.write(text)
