"""Files of sessions over REST."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from PIL import Image

from db.ids import new_id
from tests import zoo
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem
from tests.papers import docx, paragraph, pdf, picture
from tests.service import local_settings, running_service
from tests.waiting import eventually

MIB = 1_048_576


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps its files."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
async def archive(shared_database_url: str, data_dir: Path) -> AsyncGenerator[str, None]:
    """The base URL of a service with files of its own."""
    limits = {"files_per_session": 30, "reading_memory_mib": 768}
    settings = local_settings(data_dir=data_dir, limits=limits, timeouts={"reading": 20})
    async with running_service(settings, shared_database_url) as base_url:
        yield base_url


@pytest.fixture
async def http(archive: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `archive`."""
    async with httpx2.AsyncClient(base_url=archive, timeout=60) as client:
        yield client


async def upload(http: httpx2.AsyncClient, session_id: str, data: bytes, name: str = "x.txt") -> httpx2.Response:
    return await http.post(f"/api/sessions/{session_id}/files", files={"file": (name, data, "text/html")})


async def uploaded(http: httpx2.AsyncClient, session_id: str, data: bytes, name: str = "x.txt") -> dict[str, Any]:
    answer = await upload(http, session_id, data, name)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == answer.json()["url"]
    return answer.json()


def on_disk(data_dir: Path) -> set[str]:
    """The names of all that is kept, drafts among them."""
    return {path.name for path in (data_dir / "files").rglob("*") if path.is_file()}


async def test_a_document_is_kept_as_it_is_and_read(http: httpx2.AsyncClient, session_id: str) -> None:
    data = docx(paragraph("Meet at noon.") + paragraph("Bring bread."))

    file = await uploaded(http, session_id, data, "plans.docx")

    assert file["media_type"].endswith("wordprocessingml.document")
    assert (file["kind"], file["text_state"], file["text_note"]) == ("document", "ready", None)
    assert (file["name"], file["size"], file["sha256"]) == ("plans.docx", len(data), hashlib.sha256(data).hexdigest())
    assert file["characters"] == 26
    assert file["token_count"] > 5
    text = (await http.get(file["url"] + "/text")).json()
    assert (text["text"], text["next_offset"]) == ("Meet at noon.\nBring bread.", None)
    got = await http.get(file["url"])
    assert got.content == data
    assert got.headers["content-type"] == file["media_type"]
    assert got.headers["content-disposition"] == "attachment; filename=\"plans.docx\"; filename*=UTF-8''plans.docx"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in got.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"<!doctype html><script>alert(1)</script><p>Hello", "text/html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'></svg>", "image/svg+xml"),
        (b"GIF89a/*" + bytes(20) + b"*/=alert(1)//", None),
    ],
)
async def test_what_could_act_in_a_browser_is_only_ever_saved(
    http: httpx2.AsyncClient, session_id: str, data: bytes, media_type: str | None
) -> None:
    answer = await upload(http, session_id, data, "x.png")

    if media_type is None:
        problem(answer, 422, "invalid_request", "/file")
        return
    got = await http.get(answer.json()["url"])
    assert got.headers["content-type"].partition(";")[0] == media_type
    assert got.headers["content-disposition"].startswith("attachment;")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.content == data


async def test_a_picture_is_painted_anew(http: httpx2.AsyncClient, session_id: str, data_dir: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "the secret camera"

    file = await uploaded(http, session_id, picture("JPEG", size=(300, 200), exif=exif) + b"<script>secret", "a.pdf")

    assert (file["kind"], file["media_type"], file["width"], file["height"]) == ("image", "image/jpeg", 300, 200)
    assert (file["text_state"], file["characters"]) == ("none", 0)
    got = await http.get(file["url"])
    assert b"secret" not in got.content
    assert hashlib.sha256(got.content).hexdigest() == file["sha256"]
    with Image.open(BytesIO(got.content)) as image:
        assert (image.format, image.size) == ("JPEG", (300, 200))
    assert not any(b"secret" in path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    problem(await http.get(file["url"] + "/text"), 409, "no_text")


async def test_files_are_listed_newest_first_in_pages(http: httpx2.AsyncClient, session_id: str) -> None:
    made = [(await uploaded(http, session_id, f"{n}".encode()))["id"] for n in range(5)]
    path = f"/api/sessions/{session_id}/files"

    first = await http.get(path, params={"limit": 3})
    second = await http.get(path, params={"limit": 3, "cursor": first.json()["next_cursor"]})

    assert [file["id"] for page in (first, second) for file in page.json()["items"]] == made[::-1]
    assert 'rel="next"' in first.headers["link"]
    assert second.json()["next_cursor"] is None


async def test_a_text_is_read_in_parts(http: httpx2.AsyncClient, session_id: str) -> None:
    text = "".join(f"Line {n} of the 文件, for good measure.\n" for n in range(500)).strip()
    file = await uploaded(http, session_id, text.encode(), "x.md")

    parts: list[str] = []
    offset: int | None = 0
    while offset is not None:
        part = (await http.get(file["url"] + "/text", params={"offset": offset, "limit": 1_777})).json()
        assert part["offset"] == offset
        parts.append(part["text"])
        offset = part["next_offset"]

    assert "".join(parts) == text
    assert {len(part) for part in parts[:-1]} == {1_777}
    past = (await http.get(file["url"] + "/text", params={"offset": 10**9})).json()
    assert (past["text"], past["next_offset"]) == ("", None)
    for wrong in ({"offset": -1}, {"limit": 0}, {"limit": 100_001}, {"offset": "x"}):
        problem(await http.get(file["url"] + "/text", params=wrong), 422, "invalid_request")


async def test_a_deleted_file_is_gone_with_its_bytes(http: httpx2.AsyncClient, session_id: str, data_dir: Path) -> None:
    file = await uploaded(http, session_id, b"short-lived")
    wide = await uploaded(http, session_id, picture("JPEG", size=(3000, 10)))
    assert {file["id"], wide["id"], f"{wide['id']}.view"} <= on_disk(data_dir)

    for one in (file, wide):
        assert (await http.delete(one["url"])).status_code == 204
        problem(await http.get(one["url"]), 404, "not_found")
        problem(await http.get(one["url"] + "/text"), 404, "not_found")
        problem(await http.delete(one["url"]), 404, "not_found")

    assert not {file["id"], wide["id"], f"{wide['id']}.view"} & on_disk(data_dir)
    assert (await http.get(f"/api/sessions/{session_id}/files")).json()["items"] == []


async def test_a_session_takes_its_files_with_it(
    http: httpx2.AsyncClient, session_id: str, data_dir: Path, database: asyncpg.Connection
) -> None:
    files = [await uploaded(http, session_id, f"{n}".encode()) for n in range(3)]

    assert (await http.delete(f"/api/sessions/{session_id}")).status_code == 204

    assert not {file["id"] for file in files} & on_disk(data_dir)
    ids = [file["id"] for file in files]
    assert await database.fetchval("select count(*) from files where id = any($1::uuid[])", ids) == 0
    assert await database.fetchval("select count(*) from file_passages where file_id = any($1::uuid[])", ids) == 0


async def test_files_of_strangers_and_of_other_sessions_are_not_there(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, database: asyncpg.Connection
) -> None:
    owner = await database.fetchval("select owner_id from sessions where id = $1", stranger.session_id)
    theirs = new_id()
    await database.execute(
        """
        insert into files (id, session_id, owner_id, name, media_type, size, sha256, text_state)
        values ($1, $2, $3, 'theirs.txt', 'text/plain', 1, '', 'ready')
        """,
        theirs,
        stranger.session_id,
        owner,
    )
    mine = await uploaded(http, session_id, b"mine")
    other = (await http.post("/api/sessions", json={})).json()["id"]

    for session in (stranger.session_id, uuid4()):
        problem(await upload(http, str(session), b"x"), 404, "not_found")
        problem(await http.get(f"/api/sessions/{session}/files"), 404, "not_found")
    nowhere = [(stranger.session_id, theirs), (session_id, theirs), (other, mine["id"]), (session_id, uuid4())]
    for session, file in nowhere:
        for method, end in (("GET", ""), ("GET", "/text"), ("DELETE", "")):
            problem(await http.request(method, f"/api/sessions/{session}/files/{file}{end}"), 404, "not_found")
    assert (await http.get(mine["url"])).content == b"mine"
    assert await database.fetchval("select count(*) from files where id = $1", theirs) == 1
    for path in (f"/api/sessions/{session_id}/files/x", "/api/sessions/x/files"):
        problem(await http.get(path), 422, "invalid_request")
    problem(await http.get(f"/api/sessions/{session_id}/files/..%2f..%2fx"), 404, "not_found")


@pytest.mark.parametrize(("sent", "kept"), zoo.NAMES.items(), ids=range(len(zoo.NAMES)))
async def test_names_are_data(http: httpx2.AsyncClient, session_id: str, data_dir: Path, sent: str, kept: str) -> None:
    # The client would not send all of them as they are.
    quoted = sent.replace('"', "%22").replace("\n", "")
    body = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\nabc\r\n--x--\r\n'

    answer = await http.post(
        f"/api/sessions/{session_id}/files",
        content=body.encode(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )

    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == kept
    assert (await http.get(answer.json()["url"])).content == b"abc"
    assert answer.json()["id"] in on_disk(data_dir)


@pytest.mark.parametrize("name", zoo.READINGS)
async def test_a_file_that_cannot_be_read_is_kept_and_says_why(
    http: httpx2.AsyncClient, session_id: str, name: str
) -> None:
    data = zoo.READINGS[name]()

    file = await uploaded(http, session_id, data, "x.docx")

    assert (file["text_state"], file["characters"]) == ("failed", 0)
    assert file["text_note"]
    refused = problem(await http.get(file["url"] + "/text"), 409, "no_text")
    assert file["text_note"] in refused["detail"]
    assert (await http.get(file["url"])).content == data


@pytest.mark.parametrize("name", zoo.PICTURES)
async def test_a_picture_that_cannot_be_used_is_refused(
    http: httpx2.AsyncClient, session_id: str, data_dir: Path, name: str
) -> None:
    before = on_disk(data_dir)

    problem(await upload(http, session_id, zoo.PICTURES[name](), "x.png"), 422, "invalid_request", "/file")

    assert on_disk(data_dir) == before
    assert (await http.get(f"/api/sessions/{session_id}/files")).json()["items"] == []


async def test_what_has_no_text_is_kept_for_people(http: httpx2.AsyncClient, session_id: str) -> None:
    binary = await uploaded(http, session_id, bytes(range(256)), "x.txt")
    archive = await uploaded(http, session_id, zoo.nested_archives(), "x.docx")
    scan = await uploaded(http, session_id, pdf("", ""), "scan.pdf")

    assert (binary["kind"], binary["media_type"], binary["text_state"]) == ("other", "application/octet-stream", "none")
    assert (archive["kind"], archive["media_type"], archive["text_state"]) == ("other", "application/zip", "none")
    assert (scan["kind"], scan["text_state"], scan["characters"]) == ("document", "ready", 0)
    assert "scan" in scan["text_note"]


async def test_an_empty_file_is_refused(http: httpx2.AsyncClient, session_id: str, data_dir: Path) -> None:
    before = on_disk(data_dir)

    problem(await upload(http, session_id, b""), 422, "invalid_request", "/file")

    assert on_disk(data_dir) == before


async def test_a_file_of_too_many_bytes_is_413_whether_it_says_so_or_not(
    http: httpx2.AsyncClient, session_id: str, data_dir: Path
) -> None:
    before = on_disk(data_dir)

    async def endless() -> AsyncGenerator[bytes, None]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield bytes([65]) * MIB

    path = f"/api/sessions/{session_id}/files"
    problem(await upload(http, session_id, bytes(26_214_401)), 413, "body_too_large")
    problem(await upload(http, session_id, bytes(40 * MIB)), 413, "body_too_large")
    try:
        answer = await http.post(path, content=endless(), headers={"content-type": "multipart/form-data; boundary=x"})
    except httpx2.NetworkError:
        pass  # the service hung up before all of it was sent
    else:
        problem(answer, 413, "body_too_large")

    assert on_disk(data_dir) == before
    assert (await http.get(path)).json()["items"] == []


async def test_bodies_that_are_no_form_with_a_file_are_refused(
    http: httpx2.AsyncClient, session_id: str, data_dir: Path
) -> None:
    path = f"/api/sessions/{session_id}/files"
    before = on_disk(data_dir)

    problem(await http.post(path, json={}), 415, "unsupported_media_type")
    problem(await http.post(path), 415, "unsupported_media_type")
    problem(await http.post(path, files={"other": b"x"}), 422, "invalid_request", "/file")
    problem(await http.post(path, files={"file": (None, "text")}), 422, "invalid_request", "/file")
    problem(await http.post(path, files=[("file", b"x"), ("file", b"y")]), 422, "invalid_request", "/file")
    broken = await http.post(path, content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=x"})
    problem(broken, 400, "malformed_form")
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc'
    problem(
        await http.post(path, content=cut, headers={"content-type": "multipart/form-data; boundary=x"}),
        400,
        "malformed_form",
    )

    assert on_disk(data_dir) == before


async def test_an_upload_that_breaks_off_leaves_nothing(
    http: httpx2.AsyncClient, session_id: str, data_dir: Path
) -> None:
    before = on_disk(data_dir)
    assert http.base_url.port
    _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
    head = (
        f"POST /api/sessions/{session_id}/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    writer.write(head.encode() + bytes(MIB))
    await writer.drain()
    await eventually(lambda: on_disk(data_dir) != before)
    writer.transport.abort()

    await eventually(lambda: on_disk(data_dir) == before)
    assert (await http.get(f"/api/sessions/{session_id}/files")).json()["items"] == []


async def test_there_is_room_for_so_many_files_and_no_more(http: httpx2.AsyncClient, session_id: str) -> None:
    answers = await asyncio.gather(*(upload(http, session_id, bytes(range(200))) for _ in range(36)))

    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 6
    for answer in refused:
        problem(answer, 409, "conflict")


async def test_there_is_room_for_so_many_bytes_of_a_user(database_url: str, tmp_path: Path) -> None:
    settings = local_settings(data_dir=tmp_path, limits={"file_bytes_per_user": 1000})
    async with running_service(settings, database_url) as base_url, httpx2.AsyncClient(base_url=base_url) as http:
        one, other = [(await http.post("/api/sessions", json={})).json()["id"] for _ in range(2)]
        first = await uploaded(http, one, bytes(range(256)) * 2)
        problem(await upload(http, other, bytes(range(256)) * 2), 409, "conflict")
        await uploaded(http, other, bytes(range(200)))
        await http.delete(first["url"])
        await uploaded(http, other, bytes(range(256)) * 2)

        assert len(on_disk(tmp_path)) == 2


async def test_the_loop_does_not_stall_while_a_large_file_comes_in(http: httpx2.AsyncClient, session_id: str) -> None:
    line = b"The quick brown fox jumps over the lazy dog, again and again and again.\n"
    data = line * (20 * MIB // len(line))
    answered = 0
    task = asyncio.create_task(upload(http, session_id, data))
    while not task.done():
        assert (await http.get("/livez")).status_code == 200
        answered += 1

    assert answered > 10
    assert task.result().json()["characters"] == 1_000_000
    assert "Only the first" in task.result().json()["text_note"]


async def test_a_form_of_countless_parts_is_given_up(http: httpx2.AsyncClient, session_id: str) -> None:
    part = b'--x\r\ncontent-disposition: form-data; name="other"\r\n\r\n\r\n'
    file = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\na\r\n--x--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    url = f"/api/sessions/{session_id}/files"

    assert (await http.post(url, content=part * 99 + file, headers=headers)).status_code == 201
    problem(await http.post(url, content=part * 100 + file, headers=headers), 400, "malformed_form")
