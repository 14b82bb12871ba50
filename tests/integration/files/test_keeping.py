"""Bytes and rows: neither is ever left without the other for long, whatever breaks off in between."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from db.ids import FileId, SessionId, UserId, new_id
from services.context.tokens import TokenCounter
from services.errors import Conflict, NotFound
from services.files.intake import FileLimits
from services.files.readings import Readings, passages
from services.files.service import NoText
from services.files.sweeper import Sweeper
from services.files.vault import FileTooLarge, Vault
from tests.integration.files.conftest import Desk
from tests.papers import docx, paragraph, picture
from tests.service import local_settings, running_service
from tests.waiting import eventually


def kept(desk: Desk) -> set[str]:
    root = desk.vault.path(FileId(new_id())).parent.parent
    return {path.name for path in root.rglob("*") if path.is_file()}


async def pieces(*data: bytes) -> AsyncGenerator[bytes, None]:
    for piece in data:
        yield piece


async def test_what_is_kept_is_readable_by_nobody_else(desk: Desk) -> None:
    file = await desk.put(b"secret")

    path = desk.vault.path(file.id)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert file.name not in str(path)


async def test_a_file_that_is_too_large_leaves_nothing(desk: Desk) -> None:
    small = desk.with_limits(FileLimits(10, 5, 1000))

    with pytest.raises(FileTooLarge):
        await small.upload(desk.owner_id, desk.session_id, "x", pieces(b"12345", b"123456"))
    kept_file = await small.upload(desk.owner_id, desk.session_id, "x", pieces(b"12345", b"12345"))

    assert kept(desk) == {str(kept_file.id)}


async def test_what_no_session_has_room_for_leaves_nothing(desk: Desk) -> None:
    full = desk.with_limits(FileLimits(100, 5, 12))

    with pytest.raises(Conflict, match="bytes together"):
        await full.upload(desk.owner_id, desk.session_id, "x", pieces(bytes(13)))
    with pytest.raises(NotFound):
        await full.upload(desk.owner_id, SessionId(new_id()), "x", pieces(b"x"))
    with pytest.raises(NotFound):
        await full.upload(UserId(new_id()), desk.session_id, "x", pieces(b"x"))

    assert kept(desk) == set()


async def test_an_upload_that_is_cancelled_leaves_nothing(desk: Desk) -> None:
    async def slowly() -> AsyncGenerator[bytes, None]:
        yield b"x" * 1000
        await asyncio.Event().wait()

    task = asyncio.create_task(desk.files.upload(desk.owner_id, desk.session_id, "x", slowly()))
    await eventually(lambda: kept(desk))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert kept(desk) == set()


async def test_bytes_without_a_row_are_swept_when_they_are_old(desk: Desk) -> None:
    file = await desk.put(picture("WEBP"))
    orphan, draft = FileId(new_id()), desk.vault.path(file.id).parent.parent / "drafts" / "half"
    await desk.vault.keep_bytes(orphan, b"nobody's")
    await desk.vault.keep_bytes(orphan, b"nobody's", is_view=True)
    draft.write_bytes(b"half")
    stays = {str(file.id), f"{file.id}.view"}

    assert await Sweeper(desk.store, desk.vault).sweep() == 0
    assert kept(desk) == {*stays, str(orphan), f"{orphan}.view", "half"}

    long_ago = time.time() - 7200
    for path in (desk.vault.path(orphan), desk.vault.view_path(orphan), desk.vault.path(file.id), draft):
        os.utime(path, (long_ago, long_ago))
    await Sweeper(desk.store, desk.vault).sweep()
    assert kept(desk) == stays


async def test_what_lies_there_under_a_foreign_name_is_left_alone(desk: Desk) -> None:
    file = await desk.put(b"x")
    foreign = desk.vault.path(file.id).with_name("readme")
    foreign.write_bytes(b"x")

    await Sweeper(desk.store, desk.vault, older_than=-1).sweep()

    assert kept(desk) == {str(file.id), "readme"}


async def test_an_owner_who_is_deleted_leaves_nothing(desk: Desk) -> None:
    await desk.put(b"x")
    async with desk.database.connection() as connection:
        await connection.execute("delete from users where id = $1", desk.owner_id)

    assert await Sweeper(desk.store, desk.vault, older_than=-1).sweep() == 1
    assert kept(desk) == set()


async def test_a_database_sweeps_its_own_folder_only(database_url: str, desk: Desk, tmp_path: Path) -> None:
    file = await desk.put(b"of another database")
    settings = local_settings(data_dir=tmp_path)
    long_ago = time.time() - 7200
    os.utime(desk.vault.path(file.id), (long_ago, long_ago))
    other = tmp_path / "files" / "elsewhere"
    other.mkdir()
    desk.vault.path(file.id).rename(other / str(file.id))
    os.utime(other / str(file.id), (long_ago, long_ago))

    async with running_service(settings, database_url) as base_url, httpx2.AsyncClient(base_url=base_url) as http:
        session = (await http.post("/api/sessions", json={})).json()["id"]
        await http.post(f"/api/sessions/{session}/files", files={"file": b"x"})
        first = await desk.store.vault(new_id())

    assert (other / str(file.id)).exists()
    assert len([path for path in (tmp_path / "files" / str(first)).rglob("*") if path.is_file()]) == 1
    assert await desk.store.vault(new_id()) == first


async def test_the_sweeper_sweeps_at_once_and_is_stopped(desk: Desk) -> None:
    await desk.vault.keep_bytes(FileId(new_id()), b"nobody's")

    async with Sweeper(desk.store, desk.vault, older_than=-1).running():
        await eventually(lambda: not kept(desk))


async def test_a_row_without_bytes_says_so(desk: Desk) -> None:
    file = await desk.put(b"x")
    await desk.vault.remove(file.id)

    with pytest.raises(NotFound, match="missing"):
        await desk.files.bytes_of(desk.owner_id, desk.session_id, file.id)


async def test_a_reading_that_was_broken_off_is_done_by_another(desk: Desk) -> None:
    file = await unread(desk, b"some words")
    later = Readings(desk.texts, desk.vault, desk.reader, TokenCounter(), seconds=20)

    async def is_ready() -> bool:
        return (await desk.files.get(desk.owner_id, desk.session_id, file)).text_state == "ready"

    with pytest.raises(NoText, match="not been read yet"):
        await read(desk, file)
    async with later.running():
        await eventually(is_ready, 20)

    assert await read(desk, file) == "some words"
    assert await desk.readings.read(file) is None


async def test_a_file_that_breaks_its_reader_again_and_again_is_given_up(desk: Desk) -> None:
    file = await unread(desk, b"some words")
    for _ in range(3):
        assert await desk.texts.left_unread(attempts=3, limit=9) == [file]
        assert await desk.texts.begin_reading(file, patience=-1)

    assert await desk.texts.left_unread(attempts=3, limit=9) == []

    given_up = await desk.files.get(desk.owner_id, desk.session_id, file)
    assert (given_up.text_state, given_up.text_note) == ("failed", "Reading it was broken off several times.")


async def test_a_file_that_is_being_read_is_left_to_its_reader(desk: Desk) -> None:
    file = await unread(desk, b"some words")

    assert await desk.texts.begin_reading(file, patience=60)

    assert await desk.texts.left_unread(attempts=3, limit=9) == []


async def test_a_file_whose_bytes_are_gone_cannot_be_read(desk: Desk) -> None:
    file = await unread(desk, b"some words")
    await desk.vault.remove(file)

    read = await desk.readings.read(file)

    assert read is not None
    assert (read.text_state, read.text_note) == ("failed", "Its bytes are missing.")


async def test_a_file_that_is_deleted_while_it_is_read_stays_deleted(desk: Desk) -> None:
    file = await unread(desk, b"some words")
    await desk.files.delete(desk.owner_id, desk.session_id, file)

    assert await desk.readings.read(file) is None
    assert kept(desk) == set()


async def test_a_copy_is_a_file_of_its_own(desk: Desk) -> None:
    target = await desk.another_session()
    file = await desk.put(docx(paragraph("Meet at noon.")), "a.docx")
    image = await desk.put(picture("WEBP"), "b.webp")

    copied = await desk.files.copy(desk.owner_id, file.id, source=desk.session_id, target=target)
    shown = await desk.files.copy(desk.owner_id, image.id, source=desk.session_id, target=target)
    for one in (file, image):
        await desk.files.delete(desk.owner_id, desk.session_id, one.id)

    assert (copied.session_id, copied.name, copied.sha256) == (target, "a.docx", file.sha256)
    assert copied.id != file.id
    part = await desk.files.read_text(desk.owner_id, target, copied.id, offset=0, limit=100)
    assert part.text == "Meet at noon."
    assert (await desk.files.image_bytes(desk.owner_id, target, shown.id)).data
    await Sweeper(desk.store, desk.vault, older_than=-1).sweep()
    assert kept(desk) == {str(copied.id), str(shown.id), f"{shown.id}.view"}


async def test_a_file_is_copied_only_within_an_owner(desk: Desk, tmp_path: Path) -> None:
    file = await desk.put(b"x")

    for owner, source, target in (
        (UserId(new_id()), desk.session_id, desk.session_id),
        (desk.owner_id, SessionId(new_id()), desk.session_id),
        (desk.owner_id, desk.session_id, SessionId(new_id())),
    ):
        with pytest.raises(NotFound):
            await desk.files.copy(owner, file.id, source=source, target=target)

    assert kept(desk) == {str(file.id)}


def test_passages_are_cut_between_lines_and_words_and_make_up_the_text() -> None:
    text = ("word " * 90 + "\n") * 30 + "x" * 5_000
    cut = list(passages(text))

    assert "".join(piece for _, piece in cut) == text
    assert all(text.startswith(piece, start) for start, piece in cut)
    assert all(0 < len(piece) <= 2_001 for _, piece in cut)
    assert all(piece.endswith(("\n", " ")) for _, piece in cut[:6])
    assert list(passages("")) == []


async def unread(desk: Desk, data: bytes) -> FileId:
    """A file whose upload broke off before it was read."""
    file = await desk.put(data)
    async with desk.database.connection() as connection:
        await connection.execute("delete from file_passages where file_id = $1", file.id)
        await connection.execute(
            """
            update files set text_state = 'waiting', characters = 0, reading_attempts = 0,
                             reading_until = now() - interval '1 second'
            where id = $1
            """,
            file.id,
        )
    return file.id


async def read(desk: Desk, file_id: FileId) -> str:
    return (await desk.files.read_text(desk.owner_id, desk.session_id, file_id, offset=0, limit=100)).text


async def test_the_vault_needs_no_directory_beforehand(tmp_path: Path) -> None:
    assert await Vault(tmp_path / "not" / "yet").kept(older_than=0) == []
