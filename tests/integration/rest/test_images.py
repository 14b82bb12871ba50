"""Pictures over REST."""

import struct
import zlib
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from PIL import Image, PngImagePlugin

from db.ids import new_id
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service

UPLOAD = "/api/personas/upload-image"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps its files."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
async def gallery(shared_database_url: str, data_dir: Path) -> AsyncGenerator[str, None]:
    """The base URL of a service with files of its own."""
    settings = local_settings(data_dir=data_dir, limits={"images_per_user": 20})
    async with running_service(settings, shared_database_url) as base_url:
        yield base_url


@pytest.fixture
async def http(gallery: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `gallery`."""
    async with httpx2.AsyncClient(base_url=gallery, timeout=20) as client:
        yield client


def picture(format: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    written = BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


def announcing(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


async def upload(http: httpx2.AsyncClient, data: bytes, name: str = "x.png", kind: str = "image/png"):
    return await http.post(UPLOAD, files={"file": (name, data, kind)})


@pytest.mark.parametrize(
    ("format", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P")],
)
async def test_a_picture_is_kept_as_webp_whatever_it_is_called(
    http: httpx2.AsyncClient, format: str, mode: str
) -> None:
    kept = await upload(http, picture(format, mode), "../../etc/passwd.html", "text/html")

    assert kept.status_code == 201
    told = kept.json()
    assert told["image_path"] == f"images/{told['url'].removeprefix('/api/images/')}.webp"
    served = await http.get(told["url"])
    assert served.headers["content-type"] == "image/webp"
    assert served.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in served.headers["content-security-policy"]
    assert "immutable" in served.headers["cache-control"]
    with Image.open(BytesIO(served.content)) as image:
        assert (image.format, image.size) == ("WEBP", (8, 6))


async def test_nothing_but_the_pixels_is_kept(http: httpx2.AsyncClient, data_dir: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "the secret place")
    exif = Image.Exif()
    exif[0x0110] = "the secret camera"
    marked = picture("PNG", pnginfo=text, exif=exif, icc_profile=b"the secret profile")
    assert b"secret" in marked

    served = await http.get((await upload(http, marked)).json()["url"])

    assert b"secret" not in served.content
    with Image.open(BytesIO(served.content)) as image:
        assert not {"exif", "icc_profile", "xmp"} & set(image.info)
    assert not any(b"secret" in file.read_bytes() for file in data_dir.rglob("*") if file.is_file())


async def test_a_picture_is_turned_upright_and_made_small(http: httpx2.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side

    served = await http.get((await upload(http, picture("JPEG", size=(2048, 1024), exif=exif))).json()["url"])

    with Image.open(BytesIO(served.content)) as image:
        assert image.size == (256, 512)


async def test_the_same_pixels_are_kept_once(http: httpx2.AsyncClient) -> None:
    ways = [picture("PNG", size=(9, 9)), picture("WEBP", size=(9, 9), lossless=True)]

    assert len({(await upload(http, way)).json()["url"] for way in ways}) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html></html>",
        b"%PDF-1.7",
        b"BM" + bytes(60),
        picture("PNG", size=(64, 64))[:-40],
        picture("JPEG", size=(64, 64))[:200],
        picture("GIF")[:20],
        b"RIFF\x10\0\0\0WEBPVP8 ",
        announcing(10, 10),
        announcing(0, 10),
    ],
    ids=["empty", "text", "svg", "html", "pdf", "bmp", "cut-png", "cut-jpeg", "cut-gif", "cut-webp", "hollow", "flat"],
)
async def test_what_is_no_picture_is_refused(http: httpx2.AsyncClient, data: bytes) -> None:
    problem(await upload(http, data), 422, "invalid_request", "/file")


@pytest.mark.parametrize(("width", "height"), [(5001, 5000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2)])
async def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    http: httpx2.AsyncClient, width: int, height: int
) -> None:
    refused = problem(await upload(http, announcing(width, height)), 422, "invalid_request", "/file")

    assert refused["details"] == {"limit": 25_000_000}


@pytest.mark.parametrize("bytes_over", [1, 100_000])
async def test_a_picture_of_too_many_bytes_is_413(http: httpx2.AsyncClient, bytes_over: int) -> None:
    problem(await upload(http, bytes(5_242_880 + bytes_over)), 413, "body_too_large")


async def test_bodies_that_are_no_form_with_a_file_are_refused(http: httpx2.AsyncClient) -> None:
    problem(await http.post(UPLOAD, json={}), 415, "unsupported_media_type")
    problem(await http.post(UPLOAD), 415, "unsupported_media_type")
    problem(await http.post(UPLOAD, files={"other": b"x"}), 422, "invalid_request", "/file")
    problem(await http.post(UPLOAD, files={"file": (None, "text")}), 422, "invalid_request", "/file")
    broken = await http.post(UPLOAD, content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=x"})
    problem(broken, 400, "malformed_form")


async def test_pictures_of_strangers_and_of_nobody_are_not_there(http: httpx2.AsyncClient, data_dir: Path) -> None:
    theirs = data_dir / "images" / str(new_id())
    theirs.mkdir(parents=True)
    image_id = uuid4()
    (theirs / f"{image_id}.webp").write_bytes(picture("WEBP"))

    problem(await http.get(f"/api/images/{image_id}"), 404, "not_found")
    problem(await http.get("/api/images/x"), 422, "invalid_request")
    problem(await http.get("/api/images/..%2f..%2fx"), 404, "not_found")


async def test_a_persona_has_an_uploaded_picture_and_no_other(http: httpx2.AsyncClient) -> None:
    kept = (await upload(http, picture(size=(7, 7)))).json()
    body = {"name": f"Ada {uuid4()}", "image": kept["image_path"]}

    persona = (await http.post("/api/personas", json=body)).json()

    assert (persona["image"], persona["image_url"]) == (kept["image_path"], kept["url"])
    for image in (f"images/{uuid4()}.webp", "https://evil.example/x.png", "../x", kept["url"]):
        refused = await http.patch(f"/api/personas/{persona['id']}", json={"image": image})
        problem(refused, 404, "not_found", "/image")
    cleared = await http.patch(f"/api/personas/{persona['id']}", json={"image": None})
    assert (cleared.json()["image"], cleared.json()["image_url"]) == (None, None)


async def test_there_is_room_for_so_many_pictures_and_no_more(http: httpx2.AsyncClient) -> None:
    answers = [await upload(http, picture(size=(20 + n, 20))) for n in range(21)]

    problem(answers[-1], 409, "conflict")
