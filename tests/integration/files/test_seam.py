"""What conversations ask of files."""

from io import BytesIO

import pytest
from PIL import Image

from db.ids import FileId, SessionId, UserId, new_id
from services.errors import NotFound
from services.files.service import NoText, kind_of_file
from tests.integration.files.conftest import Desk
from tests.papers import docx, paragraph, picture

STORY = "\n".join(f"Chapter {n}. The keeper of the lighthouse wrote in his book." for n in range(400))


async def test_files_can_be_attached_once_each_and_in_order(desk: Desk) -> None:
    plan = await desk.put(docx(paragraph("Meet at noon.")), "plan.docx")
    photo = await desk.put(picture("JPEG", size=(640, 480)), "photo.jpg")
    blob = await desk.put(bytes(range(256)), "blob")

    refs = await desk.files.attachable(desk.owner_id, desk.session_id, [photo.id, plan.id, photo.id, blob.id])

    kinds = [(ref.id, kind_of_file(ref)) for ref in refs]
    assert kinds == [(photo.id, "image"), (plan.id, "document"), (blob.id, "other")]
    assert (refs[0].width, refs[0].height) == (640, 480)
    assert refs[1].token_count == plan.token_count > 0
    assert await desk.files.attachable(desk.owner_id, desk.session_id, []) == []


async def test_a_file_that_is_not_there_is_named(desk: Desk) -> None:
    mine = await desk.put(b"x")
    nobodys = FileId(new_id())

    with pytest.raises(NotFound, match=str(nobodys)) as refused:
        await desk.files.attachable(desk.owner_id, desk.session_id, [mine.id, nobodys])
    assert refused.value.details == {"field": ("attachments", 1)}
    for owner, session in ((UserId(new_id()), desk.session_id), (desk.owner_id, await desk.another_session())):
        with pytest.raises(NotFound, match=str(mine.id)):
            await desk.files.attachable(owner, session, [mine.id])
        assert await desk.files.present(owner, session, [mine.id]) == frozenset()


async def test_what_is_looked_for_is_found_with_its_place(desk: Desk) -> None:
    await desk.put(STORY.encode(), "story.md")
    note = await desk.put(b"The lamp of the LIGHTHOUSE needs oil: see section 4.2-b.", "note.txt")

    async def found(q: str) -> list[tuple[str, int, str]]:
        hits = await desk.files.search(desk.owner_id, desk.session_id, q, limit=5)
        return [(hit.name, hit.offset, hit.text) for hit in hits]

    (name, offset, text), *_ = await found("Chapter 321")
    assert name == "story.md"
    assert "Chapter 321." in text
    assert STORY[offset:].startswith(text)
    assert (await found("needs oil"))[0][0] == "note.txt"
    assert (await found("4.2-B"))[0][0] == "note.txt"
    assert {name for name, _, _ in await found("lighthouse")} <= {"story.md", "note.txt"}
    assert len(await found("lighthouse")) == 5
    assert await found("submarine") == []
    assert await found("%") == []
    await desk.files.delete(desk.owner_id, desk.session_id, note.id)
    assert await found("needs oil") == []


async def test_nothing_is_found_in_files_of_others(desk: Desk) -> None:
    await desk.put(b"the secret word")

    assert await desk.files.search(desk.owner_id, await desk.another_session(), "secret", limit=5) == []
    with pytest.raises(NotFound):
        await desk.files.search(UserId(new_id()), desk.session_id, "secret", limit=5)
    with pytest.raises(NotFound):
        await desk.files.search(desk.owner_id, SessionId(new_id()), "secret", limit=5)


async def test_a_text_is_read_from_any_place(desk: Desk) -> None:
    file = await desk.put(STORY.encode())

    for offset, limit in ((0, 10), (1_999, 3), (2_000, 4_000), (len(STORY) - 5, 100), (0, 10**6)):
        part = await desk.files.read_text(desk.owner_id, desk.session_id, file.id, offset=offset, limit=limit)
        assert part.text == STORY[offset : offset + limit]
        assert part.next_offset == (offset + limit if offset + limit < len(STORY) else None)


async def test_a_picture_is_shown_as_models_can_look_at_it(desk: Desk) -> None:
    small = await desk.put(picture("PNG", size=(40, 30)))
    large = await desk.put(picture("JPEG", size=(4000, 3000)))
    webp = await desk.put(picture("WEBP", size=(40, 30)))

    shown = [await desk.files.image_bytes(desk.owner_id, desk.session_id, file.id) for file in (small, large, webp)]

    assert [one.media_type for one in shown] == ["image/png", "image/jpeg", "image/jpeg"]
    sizes: list[tuple[int, int]] = []
    for one in shown:
        with Image.open(BytesIO(one.data)) as image:
            sizes.append(image.size)
    assert sizes == [(40, 30), (2048, 1536), (40, 30)]


async def test_what_is_no_picture_is_not_shown_and_what_is_one_is_not_read(desk: Desk) -> None:
    words, photo = await desk.put(b"x"), await desk.put(picture())

    with pytest.raises(NotFound):
        await desk.files.image_bytes(desk.owner_id, desk.session_id, words.id)
    with pytest.raises(NoText):
        await desk.files.read_text(desk.owner_id, desk.session_id, photo.id, offset=0, limit=1)
