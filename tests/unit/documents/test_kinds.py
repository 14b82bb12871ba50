"""What a file is taken for: by what is in it, and for kinds of text by its name."""

import pytest

from services.documents.kinds import HEAD, kind_of
from tests.papers import docx, odf, paragraph, pdf, picture


@pytest.mark.parametrize(
    ("data", "name", "media_type", "reading"),
    [
        (picture("PNG"), "x.html", "image/png", "image"),
        (picture("JPEG"), "x.exe", "image/jpeg", "image"),
        (picture("GIF", "P"), "", "image/gif", "image"),
        (picture("WEBP"), "x", "image/webp", "image"),
        (pdf("a"), "x.txt", "application/pdf", "pdf"),
        (b"\n\n  " + pdf("a"), "x", "application/pdf", "pdf"),
        (docx(paragraph("a")), "x.png", "application/zip", "package"),
        (odf("text", ""), "x.png", "application/zip", "package"),
        (b"{\\rtf1 x}", "x.txt", "application/rtf", "rtf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "x.doc", "application/x-ole-storage", "legacy"),
        (b"\x1f\x8b\x08" + bytes(9), "x.txt", "application/gzip", "none"),
        (b"\x7fELF\x02" + bytes(99), "x.txt", "application/x-elf", "none"),
        (bytes(range(256)), "x.txt", "application/octet-stream", "none"),
        (b"\x01\x02\x03\x04\x05\x06", "x.txt", "application/octet-stream", "none"),
        (b"# Title", "x.md", "text/markdown", "text"),
        (b"a,b", "x.CSV", "text/csv", "text"),
        (b"{}", "x.json", "application/json", "text"),
        (b"print()", "x.py", "text/x-python", "text"),
        (b"plain", "x.pdf", "text/plain", "text"),
        (b"plain", "x.png", "text/plain", "text"),
        (b"plain", "", "text/plain", "text"),
        ("żółw".encode(), "x", "text/plain", "text"),
        ("żółw".encode("utf-16"), "x.md", "text/markdown", "text"),
        ("a longer text".encode("utf-16-le"), "x", "text/plain", "text"),
        (b"\n<!DOCTYPE HTML><p>", "x.txt", "text/html", "html"),
        (b"\xef\xbb\xbf<html>", "x.txt", "text/html", "html"),
        (b"<p>part of a page", "x.htm", "text/html", "html"),
        (b"<svg onload=alert(1)>", "x.txt", "image/svg+xml", "text"),
        (b"<?xml version='1.0'?><svg>", "x.txt", "image/svg+xml", "text"),
        (b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>", "x", "application/xhtml+xml", "html"),
        (b"GIF89a/*<script>*/", "x.js", "image/gif", "image"),
    ],
)
def test_a_file_is_what_its_content_says(data: bytes, name: str, media_type: str, reading: str) -> None:
    kind = kind_of(data[:HEAD], name)

    assert (kind.media_type, kind.reading) == (media_type, reading)
