"""Documents as other programs write them, as small as can be."""

import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO

from PIL import Image

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
_S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_P = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
_A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
_O = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
_T = 'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
_TABLE = 'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def zipped(entries: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive of these entries."""
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return written.getvalue()


def relations(**targets: tuple[str, str]) -> str:
    """A part's relations: id → (kind, target)."""
    rows = "".join(
        f'<Relationship Id="{id}" Type="{_RELATIONS}/{kind}" Target="{target}"/>'
        for id, (kind, target) in targets.items()
    )
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{rows}</Relationships>'


def docx(body: str, **parts: str | bytes) -> bytes:
    """A document of Word; `body` is what stands in it."""
    document = f"<w:document {_W}><w:body>{body}</w:body></w:document>"
    entries = {"_rels/.rels": relations(r1=("officeDocument", "word/document.xml")), "word/document.xml": document}
    return zipped(entries | {name.replace("__", "/"): part for name, part in parts.items()})


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of Word."""
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def docx_with_notes() -> bytes:
    """A document of Word with a heading, a table and a footnote."""
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in "ab")
    body = (
        paragraph("Plans", "Heading2")
        + "<w:p><w:r><w:t>One</w:t><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t></w:r></w:p>"
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
        + "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    )
    notes = f"<w:footnotes {_W}><w:footnote>{paragraph('Seen from afar.')}</w:footnote></w:footnotes>"
    return zipped(
        {
            "_rels/.rels": relations(r1=("officeDocument", "/word/document.xml")),
            "word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relations(r7=("footnotes", "footnotes.xml")),
            "word/footnotes.xml": notes,
        }
    )


def xlsx(rows: str, strings: str = "", formats: str = "", styles: str = "") -> bytes:
    """A workbook of Excel with one sheet called Data."""
    return zipped(
        {
            "_rels/.rels": relations(r1=("officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook {_S} {_R}><sheets><sheet name="Data" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relations(
                r1=("worksheet", "worksheets/sheet1.xml"), r2=("sharedStrings", "strings.xml"), r3=("styles", "s.xml")
            ),
            "xl/strings.xml": f"<sst {_S}>{strings}</sst>",
            "xl/s.xml": f"<styleSheet {_S}><numFmts>{formats}</numFmts><cellXfs>{styles}</cellXfs></styleSheet>",
            "xl/worksheets/sheet1.xml": f"<worksheet {_S}><sheetData>{rows}</sheetData></worksheet>",
        }
    )


def pptx(*slides: str, notes: str = "") -> bytes:
    """A presentation whose slides stand in its archive in reverse order; notes belong to the first."""
    ids = "".join(f'<p:sldId id="{256 + n}" r:id="r{n}"/>' for n in range(len(slides)))
    entries: dict[str, str | bytes] = {
        "_rels/.rels": relations(r1=("officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f"<p:presentation {_P} {_R}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(
            **{f"r{n}": ("slide", f"slides/slide{len(slides) - n}.xml") for n in range(len(slides))}
        ),
        f"ppt/slides/_rels/slide{len(slides)}.xml.rels": relations(r1=("notesSlide", "../notesSlides/n.xml")),
        "ppt/notesSlides/n.xml": _slide(notes),
    }
    for n, text in enumerate(slides):
        entries[f"ppt/slides/slide{len(slides) - n}.xml"] = _slide(text)
    return zipped(entries)


def _slide(text: str) -> str:
    page = '<a:fld type="slidenum"><a:t>7</a:t></a:fld>'
    lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r>{page}</a:p>" for line in text.split("\n"))
    return f"<p:sld {_P} {_A}>{lines}</p:sld>"


def odf(kind: str, content: str) -> bytes:
    """A document of LibreOffice."""
    body = f"<office:document-content {_O} {_T} {_TABLE}>{content}</office:document-content>"
    return zipped({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": body})


def epub(*chapters: str) -> bytes:
    """A book."""
    names = [f"ch {n}.xhtml" for n in range(len(chapters))]
    items = "".join(f'<item id="c{n}" href="{name.replace(" ", "%20")}"/>' for n, name in enumerate(names))
    order = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfile full-path="OEBPS/book.opf"/></container>',
            "OEBPS/book.opf": f"<package><manifest>{items}</manifest><spine>{order}</spine></package>",
        }
        | {
            f"OEBPS/{name}": f"<html><body><p>{text}</p></body></html>"
            for name, text in zip(names, chapters, strict=True)
        }
    )


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    count = len(pages)
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{' '.join(f'{4 + 2 * n} 0 R' for n in range(count))}]/Count {count}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for n, text in enumerate(pages):
        content = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET"
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Resources<</Font<</F1 3 0 R>>>>"
            f"/Contents {5 + 2 * n} 0 R>>"
        )
        objects.append(f"<</Length {len(content)}>>\nstream\n{content}\nendstream")
    return pdf_of(objects)


def pdf_of(objects: list[str], trailer: str = "") -> bytes:
    """A PDF of these objects, the first of which is its root."""
    written, places = bytearray(b"%PDF-1.7\n"), []
    for number, text in enumerate(objects, 1):
        places.append(len(written))
        written += f"{number} 0 obj\n{text}\nendobj\n".encode()
    start = len(written)
    written += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    written += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    written += f"trailer\n<</Size {len(objects) + 1}/Root 1 0 R{trailer}>>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(written)


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    """A picture with something on it."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    written = BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


def png_announcing(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
