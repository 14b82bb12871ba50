"""Documents that are ZIP archives: which kind one is, and who reads it."""

from collections.abc import Callable
from typing import BinaryIO

from services.documents.archive import Package
from services.documents.epub import read_epub
from services.documents.opendocument import read_opendocument
from services.documents.presentation import read_presentation
from services.documents.relations import Relations
from services.documents.spreadsheet import read_spreadsheet
from services.documents.wordprocessing import read_wordprocessing
from services.documents.words import Words

_EPUB = "application/epub+zip"
_ODF = "application/vnd.oasis.opendocument."
_OOXML = "application/vnd.openxmlformats-officedocument."

Read = Callable[[Words], None]
_OFFICE: tuple[tuple[str, str, Callable[[Package, str, Words], None]], ...] = (
    ("word/", f"{_OOXML}wordprocessingml.document", read_wordprocessing),
    ("xl/", f"{_OOXML}spreadsheetml.sheet", read_spreadsheet),
    ("ppt/", f"{_OOXML}presentationml.presentation", read_presentation),
)


def open_package(file: BinaryIO, *, budget: int) -> tuple[str, Read] | None:
    """The document's media type, and what writes its text; None for an archive that is no document.

    Not more than `budget` bytes are unpacked in all. Raises `Unreadable`, as does what is returned, beside `Enough`.
    """
    package = Package(file, budget)
    named = package.read("mimetype")[:200].decode("ascii", "replace").strip() if "mimetype" in package else ""
    if named.startswith(_ODF):
        return named, lambda words: read_opendocument(package, words)
    if named == _EPUB:
        return named, lambda words: read_epub(package, words)
    for part in Relations(package, "").of_kind("officeDocument"):
        for folder, media_type, read in _OFFICE:
            if part.startswith(folder) and part in package:
                return media_type, lambda words, read=read, part=part: read(package, part, words)
    return None
