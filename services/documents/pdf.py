"""PDF, through PDFium."""

import time
from importlib import import_module
from typing import Any, BinaryIO

from services.documents.words import Enough, Unreadable, Words

_PASSWORD = 4  # FPDF_ERR_PASSWORD


def read_pdf(file: BinaryIO, words: Words, *, seconds: float) -> str | None:
    """Write the text of the pages, as far as that is possible within `seconds` of computing; a note where it was not.

    Raises `Unreadable`, `Enough`.
    """
    # Only a process that reads a PDF has it.
    library: Any = import_module("pypdfium2")
    try:
        document = library.PdfDocument(file)
        count = len(document)
    except library.PdfiumError as error:
        is_locked = getattr(error, "err_code", None) == _PASSWORD
        raise Unreadable("It is protected by a password." if is_locked else "The PDF is damaged.") from error
    unread = 0
    for number in range(count):
        if time.process_time() > seconds:
            return f"It took long: only the first {number} of {count} pages were read."
        try:
            _read_page(document, number, words)
        except library.PdfiumError:
            unread += 1
        except Enough:
            raise
    return f"{unread} of {count} pages could not be read." if unread else None


def _read_page(document: Any, number: int, words: Words) -> None:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_bounded()
        finally:
            text_page.close()
    finally:
        page.close()
    words.paragraph()
    words.write(text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-"))
