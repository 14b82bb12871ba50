"""The process that reads what a stranger sent: one file on standard input, one answer on standard output.

It is started for one file and ends with it. It has a limit on memory and on computing before it looks at the first
byte, and depends on nothing of the service but what lies beside it.
"""

import contextlib
import json
import resource
import sys
from typing import Any, BinaryIO

from services.documents.hypertext import read_html
from services.documents.kinds import Reading
from services.documents.package import open_package
from services.documents.pdf import read_pdf
from services.documents.plain import read_plain
from services.documents.rich_text import read_rtf
from services.documents.words import Enough, Unreadable, Words

PROOF = "proof"
ANSWER = b'{"works"'

_LEGACY = (
    "The old binary formats of Office are not read, nor are its documents with a password: "
    "save it without one as .docx, .xlsx, .pptx or PDF."
)


def main(job: str) -> None:
    """Do the job, a JSON object, and write a line of JSON, then as many bytes as that says."""
    if job == PROOF:
        _answer({"works": True})
        return
    wanted = json.loads(job)
    _limit(wanted["memory_bytes"], wanted["cpu_seconds"])
    try:
        _perform(wanted, sys.stdin.buffer)
    except Unreadable as error:
        _answer({"failed": str(error)})
    except MemoryError:
        _answer({"failed": "Reading it takes more memory than is allowed."})
    except RecursionError:
        _answer({"failed": "It is nested too deeply."})


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        # macOS refuses some of them; the parent's clock is left.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def _perform(wanted: dict[str, Any], file: BinaryIO) -> None:
    if wanted["reading"] == "image":
        _paint(wanted, file)
        return
    words = Words(wanted["characters"])
    try:
        media_type, note = _read(wanted["reading"], file, words, wanted)
    except Enough:
        media_type, note = words.media_type, f"Only the first {wanted['characters']:,} characters were read."
    if media_type == "application/zip":
        _answer({"media_type": media_type, "has_text": False})
        return
    text = words.text.encode("utf-8", "replace")
    _answer({"media_type": media_type, "has_text": True, "note": note, "sizes": [len(text)]}, text)


def _read(reading: Reading, file: BinaryIO, words: Words, wanted: dict[str, Any]) -> tuple[str | None, str | None]:
    """The media type, if it is another than was thought, and what is to be said of the reading."""
    match reading:
        case "text":
            return None, read_plain(file.read(), words)
        case "html":
            return None, read_html(file.read(), words)
        case "rtf":
            read_rtf(file.read(), words)
            return None, None
        case "pdf":
            return None, read_pdf(file, words, seconds=wanted["cpu_seconds"] / 2)
        case "package":
            found = open_package(file, budget=wanted["unpacked_bytes"])
            if found is None:
                return "application/zip", None
            words.media_type, read = found
            read(words)
            return words.media_type, None
        case _:
            raise Unreadable(_LEGACY)


def _paint(wanted: dict[str, Any], file: BinaryIO) -> None:
    # Not everybody pays for the import.
    from services.documents.pictures import repaint  # noqa: PLC0415

    picture = repaint(file.read(), most_pixels=wanted["pixels"], most_bytes=wanted["bytes"])
    view = picture.view or b""
    head = {
        "media_type": picture.media_type,
        "width": picture.width,
        "height": picture.height,
        "view_type": picture.view_type,
        "sizes": [len(picture.data), len(view)],
    }
    _answer(head, picture.data, view)


def _answer(head: dict[str, Any], *blobs: bytes) -> None:
    out = sys.stdout.buffer
    out.write(json.dumps(head).encode() + b"\n")
    for blob in blobs:
        out.write(blob)
    out.flush()
