"""Books (.epub): their chapters in the order of reading."""

import posixpath
from urllib.parse import unquote

from services.documents.archive import Package
from services.documents.hypertext import read_html
from services.documents.words import Unreadable, Words

_CONTAINER = "META-INF/container.xml"


def read_epub(package: Package, words: Words) -> None:
    """Write the text of the chapters. Raises `Unreadable`, `Enough`."""
    book = _Book()
    package.parse(_CONTAINER, start=book.find)
    if book.contents is None:
        raise Unreadable("The book does not say where its contents are.")
    package.parse(book.contents, start=book.take)
    for chapter in book.chapters:
        if chapter in package:
            words.paragraph()
            read_html(package.read(chapter), words)


class _Book:
    """The list of a book's parts, and their order."""

    def __init__(self) -> None:
        self.contents: str | None = None
        self._parts: dict[str, str] = {}
        self._order: list[str] = []

    @property
    def chapters(self) -> list[str]:
        """The chapters' places in the archive."""
        folder = posixpath.dirname(self.contents or "")
        parts = [self._parts[name] for name in self._order if name in self._parts]
        return [posixpath.normpath(posixpath.join(folder, unquote(part))) for part in parts]

    def find(self, element: str, attributes: dict[str, str]) -> None:
        if element == "rootfile" and self.contents is None:
            self.contents = attributes.get("full-path")

    def take(self, element: str, attributes: dict[str, str]) -> None:
        if element == "item":
            self._parts[attributes.get("id", "")] = attributes.get("href", "")
        elif element == "itemref":
            self._order.append(attributes.get("idref", ""))
