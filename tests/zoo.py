"""Files that were made to do harm: none may cost more than one reading that fails."""

import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO

from tests.papers import docx, odf, paragraph, pdf, pdf_of, picture, png_announcing, relations, xlsx, zipped

MIB = 1_048_576


def zip_bomb() -> bytes:
    """A document of Word that is small, and large when it is unpacked."""
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", relations(r1=("officeDocument", "word/document.xml")))
        with archive.open("word/document.xml", "w") as entry:
            entry.write(b"<document>")
            for _ in range(128):
                entry.write(bytes([32]) * MIB)
            entry.write(b"</document>")
    return written.getvalue()


def lying_bomb() -> bytes:
    """The same, but its table of contents says that it has ten bytes."""
    bomb = bytearray(zip_bomb())
    place = bomb.find(b"PK\x01\x02")
    while place >= 0:
        bomb[place + 24 : place + 28] = (10).to_bytes(4, "little")
        place = bomb.find(b"PK\x01\x02", place + 4)
    return bytes(bomb)


def many_entries() -> bytes:
    """An archive with more entries than anybody needs."""
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}", b"")
    return written.getvalue()


def nested_archives() -> bytes:
    """An archive in an archive in an archive, many times."""
    inner = zipped({"x": b"x" * 1000})
    for _ in range(100):
        inner = zipped({"again.zip": inner})
    return inner


def entity_bomb() -> bytes:
    """The billion laughs, as a document of Word."""
    entities = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    body = f"<!DOCTYPE x [{entities}]><x>&e9;</x>"
    return zipped({"_rels/.rels": relations(r1=("officeDocument", "word/d.xml")), "word/d.xml": body})


def entity_from_a_file() -> bytes:
    """A document that asks its reader to put one of the machine's files into it."""
    content = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'
    return zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def deep_xml() -> bytes:
    """Elements within elements, a million of them."""
    return odf("text", "<x>" * 1_000_000 + "</x>" * 1_000_000)


def wide_table() -> bytes:
    """A cell in the last column, and a row of them that is repeated a billion times."""
    rows = '<row><c r="XFD1"><v>1</v></c></row>'
    return xlsx(rows)


def repeated_cells() -> bytes:
    """Spaces and cells that are said to be repeated."""
    return odf(
        "spreadsheet",
        '<table:table table:name="x"><table:table-row table:number-rows-repeated="1000000">'
        '<table:table-cell table:number-columns-repeated="999999999"/>'
        '<table:table-cell><text:p>x<text:s text:c="999999999"/>y</text:p></table:table-cell>'
        "</table:table-row></table:table>",
    )


def many_pages() -> bytes:
    """A PDF that has one page a hundred thousand times."""
    kids = " ".join(["3 0 R"] * 100_000)
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    return pdf_of(["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count 100000>>", page])


def circular_pdf() -> bytes:
    """Pages whose parent is their child."""
    return pdf_of(["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 99999999>>"])


def pdf_bomb() -> bytes:
    """A page whose content is small, and large when it is unpacked, several times over."""
    packed = b" " * (64 * MIB)
    for _ in range(2):
        packed = zlib.compress(packed, 9)
    content = packed.hex()
    filters = "[/ASCIIHexDecode/FlateDecode/FlateDecode]"
    return pdf_of(
        [
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Kids[3 0 R]/Count 1>>",
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
            f"<</Length {len(content)}/Filter{filters}>>\nstream\n{content}\nendstream",
        ]
    )


def locked_pdf() -> bytes:
    """A PDF that says it has a password."""
    lock = "/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<" + "00" * 32 + ">/U<" + "00" * 32 + ">>>/ID[<00><00>]"
    return pdf_of(["<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[]/Count 0>>"], lock)


def tag_soup() -> bytes:
    """HTML that makes a parser look through all of it again and again."""
    return b"<!doctype html>" + b"<a " * 300_000 + b"<!--" * 300_000


def deep_rtf() -> bytes:
    """Groups within groups."""
    return b"{\\rtf1 " + b"{" * 2_000_000


READINGS: dict[str, Callable[[], bytes]] = {
    "zip bomb": zip_bomb,
    "lying zip bomb": lying_bomb,
    "many entries": many_entries,
    "entity bomb": entity_bomb,
    "entity from a file": entity_from_a_file,
    "circular PDF": circular_pdf,
    "locked PDF": locked_pdf,
    "PDF that breaks off": lambda: pdf("x" * 100)[:60],
    "docx that breaks off": lambda: docx(paragraph("x" * 10_000))[:-200],
    "docx without a document": lambda: zipped({"mimetype": "application/vnd.oasis.opendocument.text"}),
    "docx that is not XML": lambda: docx("<w:p>"),
    "old Office": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
    "deep RTF": deep_rtf,
}
"""What cannot be read."""

HARMLESS: dict[str, Callable[[], bytes]] = {
    "nested archives": nested_archives,
    "deep XML": deep_xml,
    "wide table": wide_table,
    "repeated cells": repeated_cells,
    "many pages": many_pages,
    "PDF bomb": pdf_bomb,
    "tag soup": tag_soup,
}
"""What may be read or not, but in its time and room."""

PICTURES: dict[str, Callable[[], bytes]] = {
    "50,000 by 50,000 pixels": lambda: png_announcing(50_000, 50_000),
    "a little too large": lambda: png_announcing(5_001, 5_000),
    "hollow": lambda: png_announcing(10, 10),
    "broken off": lambda: picture("JPEG", size=(64, 64))[:200],
    "only a mark": lambda: b"\xff\xd8\xff",
}
"""What is no picture that can be used."""

NAMES = {
    "../../../../etc/passwd": "passwd",
    "..\\..\\windows\\system32\\x.txt": "x.txt",
    "/absolute/path.txt": "path.txt",
    "C:\\Users\\me\\x.txt": "x.txt",
    "..": "file",
    ".": "file",
    "": "file",
    "   ": "file",
    "a\tb\x01c\x7f.txt": "abc.txt",
    "invoice\u202etxt.exe": "invoicetxt.exe",
    "\u200b\u2066x\u2069.txt": "x.txt",
    "e\u0301.txt": "\u00e9.txt",
    'quo"te;name=x.txt': 'quo"te;name=x.txt',
    "文件 名.txt": "文件 名.txt",
    "x" * 4000 + ".tar.gz": "x" * 248 + ".tar.gz",
    "й" * 2000 + ".txt": "й" * 125 + ".txt",
    "." * 300: "file",
    ".htaccess": ".htaccess",
}
"""Names as they are sent, and as they are kept."""
