"""A form with a file, taken apart while it comes in."""

from collections.abc import AsyncGenerator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from api.errors import MalformedForm
from api.uploads import uploaded_file
from services.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=line"


def part(content: bytes, field: str = "file", filename: str | None = "x.txt") -> bytes:
    name = f'; filename="{filename}"' if filename is not None else ""
    return f'--line\r\nContent-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode() + content + b"\r\n"


END = b"--line--\r\n"


def request_of(pieces: Iterable[bytes], content_type: str = TYPE) -> Request:
    async def messages() -> AsyncGenerator[Message, None]:
        for piece in pieces:
            yield {"type": "http.request", "body": piece, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    coming = messages()

    async def receive() -> Message:
        return await anext(coming)

    return Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)


async def read(body: bytes, *, size: int = 10_000, content_type: str = TYPE) -> tuple[str, bytes]:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    async with uploaded_file(request_of(pieces, content_type)) as upload:
        return upload.name, b"".join([piece async for piece in upload.pieces])


async def test_the_file_is_found_among_other_fields() -> None:
    aside = part(b"aside", "note", None)

    assert await read(aside + part(b"not me", "other") + part(b"content") + aside + END) == ("x.txt", b"content")


@given(st.binary(max_size=500), st.integers(1, 40))
async def test_any_bytes_arrive_as_they_were_sent_however_they_are_cut(content: bytes, size: int) -> None:
    if b"--line" in content:
        return

    assert await read(part(content) + END, size=size) == ("x.txt", content)


async def test_a_name_comes_as_browsers_send_it() -> None:
    sent = "a%22b; filename=c.txt ü文 ../x"

    assert (await read(part(b"", filename=sent) + END))[0] == 'a"b; filename=c.txt ü文 ../x'


async def test_a_long_name_is_no_fault() -> None:
    assert len((await read(part(b"x", filename="x" * 4_000) + END, size=7))[0]) == 4_000


async def test_a_form_that_breaks_off_is_malformed() -> None:
    whole = part(b"content") + END
    for end in range(len(whole) - 4):
        with pytest.raises((MalformedForm, InvalidRequest)):
            await read(whole[:end])


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"--line\r\nno header\r\n\r\nx\r\n" + END,
        b"--other\r\n\r\n",
        part(b"x", filename="x" * 20_000) + END,
    ],
)
async def test_what_is_no_form_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedForm):
        await read(body)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * 1000])
async def test_a_form_needs_a_boundary(boundary: str) -> None:
    with pytest.raises(MalformedForm):
        await read(part(b"x") + END, content_type=f"multipart/form-data{boundary}")


@pytest.mark.parametrize("body", [END, part(b"x", "other") + END, part(b"x", filename=None) + END])
async def test_a_form_without_the_file_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read(body)

    assert refused.value.details == {"field": "file"}


async def test_a_form_with_two_files_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="One file"):
        await read(part(b"x") + part(b"y") + END)
