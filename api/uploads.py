"""Forms with one file, handed on as they arrive: the file is never in memory as a whole, nor on the disk twice."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from api.errors import MalformedForm
from services.errors import InvalidRequest

FIELD = "file"
_LONGEST_HEADER = 16_384
_MOST_PARTS = 100

FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
"""What the OpenAPI document says of such a form."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The file of a form: its name as it was sent, and its bytes as they come."""

    name: str
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Begin:
    """A part of the form begins; without a file name it is a plain field."""

    field: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class _End:
    """A part of the form is over."""


_Step = _Begin | bytes | _End


@asynccontextmanager
async def uploaded_file(request: Request) -> AsyncGenerator[Upload, None]:
    """The form's one file, in the field `file`. Other fields are passed over.

    Raises `MalformedForm`, and `InvalidRequest` if there is no such file, or more than one. What comes after the file
    is looked at when its last piece has been taken.
    """
    async with aclosing(_steps(request)) as steps:
        async for step in steps:
            match step:
                case _Begin(field, str(filename)) if field == FIELD:
                    yield Upload(filename, _content(steps))
                    return
                case _:
                    pass
    raise InvalidRequest("A file is required.", field=FIELD)


async def _content(steps: AsyncGenerator[_Step, None]) -> AsyncGenerator[bytes, None]:
    async for step in steps:
        match step:
            case bytes():
                yield step
            case _End():
                break
            case _Begin():
                raise MalformedForm
    async for step in steps:
        match step:
            case _Begin(field, _) if field == FIELD:
                raise InvalidRequest("One file at a time.", field=FIELD)
            case _:
                pass


async def _steps(request: Request) -> AsyncGenerator[_Step, None]:
    form = _Form(request.headers.get("content-type", ""))
    async for piece in request.stream():
        for step in form.feed(piece):
            yield step
    if not form.is_whole:
        raise MalformedForm


class _Form:
    """Takes a form apart while it comes in."""

    def __init__(self, content_type: str) -> None:
        """Raises `MalformedForm`."""
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise MalformedForm
        self.is_whole = False
        self._steps: deque[_Step] = deque()
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._parts = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": lambda: self._steps.append(_End()),
                    "on_end": self._on_end,
                },
                max_header_size=_LONGEST_HEADER,
            )
        except FormParserError as error:
            raise MalformedForm from error

    def feed(self, piece: bytes) -> list[_Step]:
        """What this piece of the body brings. Raises `MalformedForm`."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise MalformedForm from error
        steps = list(self._steps)
        self._steps.clear()
        return steps

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise MalformedForm(f"A form has at most {_MOST_PARTS} parts.")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        filename = options.get(b"filename")
        self._steps.append(_Begin(_text(options.get(b"name", b"")), None if filename is None else _text(filename)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._steps.append(data[start:end])

    def _on_end(self) -> None:
        self.is_whole = True


def _text(sent: bytes) -> str:
    # Browsers write a quotation mark so (https://html.spec.whatwg.org/#multipart-form-data) and the rest as it is.
    return sent.decode("utf-8", "replace").replace("%22", '"')
