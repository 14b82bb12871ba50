"""Documents of LibreOffice and others (.odt, .ods, .odp)."""

from services.documents.archive import Package
from services.documents.words import Words

_CONTENT = "content.xml"
_MOST_SPACES = 100
_LEFT_OUT = ("annotation", "tracked-changes", "binary-data", "styles", "automatic-styles", "forms", "scripts")


def read_opendocument(package: Package, words: Words) -> None:
    """Write the text of the document, its sheets or slides. Raises `Unreadable`, `Enough`."""
    content = _Content(words)
    package.parse(_CONTENT, start=content.start, end=content.end, text=content.text)


class _Content:
    """Follows the elements of the content."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._texts = 0
        self._left_out = 0
        self._cells = 0
        self._skipped_cells = 0
        self._slides = 0

    def start(self, element: str, attributes: dict[str, str]) -> None:
        if element in _LEFT_OUT or self._left_out:
            self._left_out += 1
            return
        match element:
            case "p" | "h":
                self._begin_text(element, attributes)
            case "tab":
                self._words.write("\t")
            case "line-break":
                self._words.write("\n")
            case "s":
                self._words.write(" " * min(_number(attributes.get("c"), 1), _MOST_SPACES))
            case "table" if name := attributes.get("name"):
                self._words.paragraph()
                self._words.write(f"## {name}\n")
            case "table-cell" | "covered-table-cell":
                self._cells += 1
                self._skipped_cells += _number(attributes.get("number-columns-repeated"), 1)
            case "page":
                self._slides += 1
                self._words.paragraph()
                self._words.write(f"## Slide {self._slides}\n")
            case _:
                pass

    def end(self, element: str) -> None:
        if self._left_out:
            self._left_out -= 1
            return
        match element:
            case "p" | "h":
                self._texts -= 1
                if self._cells:
                    self._words.write(" ")
                else:
                    self._words.line()
            case "table-cell" | "covered-table-cell":
                self._cells -= 1
            case "table-row":
                self._skipped_cells = 0
                self._words.line()
            case "table":
                self._words.paragraph()
            case _:
                pass

    def text(self, text: str) -> None:
        if self._texts and not self._left_out:
            self._words.write(text)

    def _begin_text(self, element: str, attributes: dict[str, str]) -> None:
        self._texts += 1
        if self._cells:
            # The tabs of the cells before it are written only when there is something after them.
            self._words.write("\t" * min(max(self._skipped_cells - 1, 0), _MOST_SPACES))
            self._skipped_cells = 1
        elif element == "h":
            self._words.paragraph()
            self._words.write("#" * min(_number(attributes.get("outline-level"), 1), 6) + " ")


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else otherwise
