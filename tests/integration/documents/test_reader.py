"""Reading in a process of its own: what it may use up, and what is left when it was hostile."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from services.documents.kinds import HEAD, Kind, kind_of
from services.documents.pictures import Picture
from services.documents.reader import DocumentReader, NoText, ReaderLimits, Text, Unread
from services.hardening import Hardening
from tests import zoo
from tests.papers import docx, paragraph, pdf, picture, zipped
from tests.waiting import eventually

MIB = 1_048_576
LIMITS = ReaderLimits(
    memory_bytes=768 * MIB,
    cpu_seconds=4,
    wall_seconds=40,
    characters=100_000,
    unpacked_bytes=64 * MIB,
    pixels=25_000_000,
    picture_bytes=40 * MIB,
    at_once=2,
)


@pytest.fixture(scope="module")
async def reader() -> AsyncGenerator[DocumentReader, None]:
    """What reads."""
    async with DocumentReader(LIMITS) as reader:
        yield reader


async def read(reader: DocumentReader, directory: Path, data: bytes, name: str = "x") -> Text | NoText | Unread:
    return await reader.read(*kept(directory, data, name))


def kept(directory: Path, data: bytes, name: str = "x") -> tuple[Path, Kind]:
    path = directory / "file"
    path.write_bytes(data)
    return path, kind_of(data[:HEAD], name)


def children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(number) for number in found}


async def test_documents_are_read_by_their_content(reader: DocumentReader, tmp_path: Path) -> None:
    word = await read(reader, tmp_path, docx(paragraph("Hello")), "x.png")
    paper = await read(reader, tmp_path, pdf("First page", "Second page"), "x.txt")
    plain = await read(reader, tmp_path, "Grüße".encode(), "x.md")
    archive = await read(reader, tmp_path, zipped({"a": "b"}))

    assert isinstance(word, Text)
    assert (word.text, word.media_type.rpartition(".")[2]) == ("Hello", "document")
    assert paper == Text("application/pdf", "First page\n\nSecond page", None)
    assert plain == Text("text/markdown", "Grüße", None)
    assert archive == NoText("application/zip")


async def test_what_is_too_long_is_read_in_part_and_says_so(reader: DocumentReader, tmp_path: Path) -> None:
    long = await read(reader, tmp_path, docx(paragraph("word") * 50_000))

    assert isinstance(long, Text)
    assert len(long.text) in range(LIMITS.characters - 2, LIMITS.characters + 1)
    assert long.note == "Only the first 100,000 characters were read."
    assert long.media_type.endswith("document")


@pytest.mark.parametrize("name", zoo.READINGS)
async def test_what_cannot_be_read_says_why(reader: DocumentReader, tmp_path: Path, name: str) -> None:
    answer = await read(reader, tmp_path, zoo.READINGS[name]())

    assert isinstance(answer, Unread), answer
    assert len(answer.reason) > 10
    assert "passwd" not in answer.reason
    assert isinstance(await read(reader, tmp_path, b"the next one"), Text)


@pytest.mark.parametrize("name", zoo.HARMLESS)
async def test_what_is_odd_costs_no_more_than_is_allowed(reader: DocumentReader, tmp_path: Path, name: str) -> None:
    answer = await read(reader, tmp_path, zoo.HARMLESS[name]())

    assert not isinstance(answer, Text) or len(answer.text) <= LIMITS.characters


async def test_a_reading_that_hangs_is_ended(tmp_path: Path) -> None:
    async with DocumentReader(replace(LIMITS, wall_seconds=1.5)) as reader:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        with open(os.open(path, os.O_RDWR), "wb"):  # somebody may still write to it
            others = children()
            answer = await reader.read(path, Kind("text/plain", "text"))

    assert answer == Unread("Reading it took longer than 1.5 seconds.")
    assert children() <= others


async def test_computing_is_bounded(tmp_path: Path) -> None:
    async with DocumentReader(replace(LIMITS, cpu_seconds=1)) as reader:
        answer = await read(reader, tmp_path, zoo.tag_soup())

    assert isinstance(answer, Unread)
    assert "more memory or time" in answer.reason


async def test_memory_is_bounded(tmp_path: Path) -> None:
    async with DocumentReader(replace(LIMITS, memory_bytes=128 * MIB)) as reader:
        answer = await read(reader, tmp_path, bytes([65]) * (90 * MIB))

    assert answer == Unread("Reading it takes more memory than is allowed.")


async def test_a_long_pdf_is_read_as_far_as_time_allows(tmp_path: Path) -> None:
    async with DocumentReader(replace(LIMITS, cpu_seconds=1)) as reader:
        answer = await read(reader, tmp_path, zoo.many_pages())

    assert isinstance(answer, Text)
    assert "of 100000 pages" in (answer.note or "")


async def test_cancelling_ends_the_process(reader: DocumentReader, tmp_path: Path) -> None:
    await read(reader, tmp_path, b"warm")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    others = children()
    with open(os.open(path, os.O_RDWR), "wb"):
        task = asyncio.create_task(reader.read(path, Kind("text/plain", "text")))
        await eventually(lambda: children() - others)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert children() <= others


async def test_a_process_that_is_killed_costs_one_reading(reader: DocumentReader, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    others = children()
    with open(os.open(path, os.O_RDWR), "wb"):
        task = asyncio.create_task(reader.read(path, Kind("text/plain", "text")))
        await eventually(lambda: children() - others)
        for process in children() - others:
            os.kill(process, signal.SIGSEGV)
        answer = await task

    assert isinstance(answer, Unread)
    assert isinstance(await read(reader, tmp_path, b"the next one"), Text)


@pytest.mark.skipif(sys.platform != "linux", reason="hardening is Linux's")
async def test_the_process_sees_no_network_and_no_files_of_ours(reader: DocumentReader, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    await read(reader, tmp_path, b"warm")
    if reader.hardening is not Hardening.CONTAINED:
        pytest.skip("this machine offers less")
    others = children()
    with open(os.open(path, os.O_RDWR), "wb") as writing:
        task = asyncio.create_task(reader.read(path, Kind("text/plain", "text")))
        await eventually(lambda: children() - others)
        (process,) = children() - others
        await eventually(lambda: "python" in Path(f"/proc/{process}/cmdline").read_text().split("\0")[0])
        root = Path(f"/proc/{process}/root")

        assert os.readlink(f"/proc/{process}/ns/net") != os.readlink("/proc/self/ns/net")
        assert not (root / Path(__file__).relative_to("/")).exists()
        assert not (root / tmp_path.relative_to("/")).exists()
        assert not (root / "etc/passwd").exists()
        assert Path(f"/proc/{process}/environ").read_bytes() == b""
        writing.write(b"done")
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (picture("JPEG", size=(40, 30)), "image/jpeg"),
        (picture("PNG", "RGBA", size=(40, 30)), "image/png"),
        (picture("GIF", "P", size=(40, 30)), "image/png"),
    ],
)
async def test_a_picture_is_painted_anew(reader: DocumentReader, tmp_path: Path, data: bytes, media_type: str) -> None:
    painted = await reader.paint(*kept(tmp_path, data))

    assert isinstance(painted, Picture)
    assert (painted.media_type, painted.width, painted.height) == (media_type, 40, 30)
    assert (painted.view, painted.view_type) == (None, media_type)
    with Image.open(BytesIO(painted.data)) as image:
        assert (f"image/{str(image.format).lower()}", image.size) == (media_type, (40, 30))


async def test_nothing_but_the_pixels_is_kept(reader: DocumentReader, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "the secret camera"
    exif[0x0112] = 6  # lies on its side
    marked = picture("JPEG", size=(40, 30), exif=exif, comment=b"the secret place", icc_profile=b"the secret profile")
    assert marked.count(b"secret") == 3

    painted = await reader.paint(*kept(tmp_path, marked + b"<script>secret</script>"))

    assert isinstance(painted, Picture)
    assert (painted.width, painted.height) == (30, 40)
    assert b"secret" not in painted.data


@pytest.mark.parametrize(
    ("data", "view_type"),
    [
        (picture("JPEG", size=(5000, 2500)), "image/jpeg"),
        (picture("PNG", "RGBA", size=(2500, 5000)), "image/png"),
        (picture("WEBP", size=(50, 25)), "image/jpeg"),
    ],
)
async def test_models_are_shown_what_they_can_look_at(
    reader: DocumentReader, tmp_path: Path, data: bytes, view_type: str
) -> None:
    painted = await reader.paint(*kept(tmp_path, data))

    assert isinstance(painted, Picture)
    assert painted.view
    with Image.open(BytesIO(painted.view)) as view, Image.open(BytesIO(painted.data)) as whole:
        assert f"image/{str(view.format).lower()}" == painted.view_type == view_type
        assert max(view.size) == min(2048, max(whole.size))
        assert whole.size == (painted.width, painted.height)


@pytest.mark.parametrize("name", zoo.PICTURES)
async def test_what_is_no_picture_says_why(reader: DocumentReader, tmp_path: Path, name: str) -> None:
    make: Callable[[], bytes] = zoo.PICTURES[name]

    answer = await reader.paint(*kept(tmp_path, make()))

    assert isinstance(answer, Unread)
    assert "picture" in answer.reason
