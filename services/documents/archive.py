"""ZIP archives and the XML in them, unpacked by a budget: what they say of their own size counts for nothing."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO
from xml.parsers import expat

from services.documents.words import Unreadable

_MOST_ENTRIES = 20_000
_PIECE = 65_536

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a way of packing that this Python has not
    RuntimeError,  # what zipfile raises for a password
    ValueError,
    LookupError,
    OSError,
)

Start = Callable[[str, dict[str, str]], None]
End = Callable[[str], None]
Characters = Callable[[str], None]


class Package:
    """A ZIP archive. All that is unpacked of it counts against one budget of bytes."""

    def __init__(self, file: BinaryIO, budget: int) -> None:
        """Raises `Unreadable`."""
        try:
            self._archive = zipfile.ZipFile(file)
        except _DAMAGED as error:
            raise Unreadable("The archive is damaged.") from error
        entries = self._archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise Unreadable(f"The archive has more than {_MOST_ENTRIES} entries.")
        if any(entry.flag_bits & 1 for entry in entries):
            raise Unreadable("It is protected by a password.")
        self.names = [entry.filename for entry in entries]
        self._known = set(self.names)
        self._left = budget

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str) -> bytes:
        """One entry, whole. Raises `Unreadable`."""
        return b"".join(self._pieces(name))

    def parse(
        self, name: str, *, start: Start | None = None, end: End | None = None, text: Characters | None = None
    ) -> None:
        """Walk through one entry of XML. Names come without their namespaces, but for `r:id` and its kind.

        Raises `Unreadable`, and what the callbacks raise.
        """
        parser = xml_parser(start=start, end=end, text=text)
        try:
            for piece in self._pieces(name):
                parser.Parse(piece, False)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise Unreadable(f"What is in it is not XML: {expat.ErrorString(error.code)}.") from error

    def _pieces(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(name) as entry:
                while piece := entry.read(_PIECE):
                    self._left -= len(piece)
                    if self._left < 0:
                        raise Unreadable("Unpacked, it is larger than this service reads.")
                    yield piece
        except KeyError as error:
            raise Unreadable(f"A part of the document is missing: {name[:100]}.") from error
        except _DAMAGED as error:
            raise Unreadable("The archive is damaged.") from error


def xml_parser(*, start: Start | None, end: End | None, text: Characters | None) -> expat.XMLParserType:
    """A parser that knows no entities but XML's own, so that nothing in a document can multiply or be fetched."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.EntityDeclHandler = _refuse_entities
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    if start is not None:
        parser.StartElementHandler = lambda name, attributes: start(
            _local(name), {_local(key): value for key, value in attributes.items()}
        )
    if end is not None:
        parser.EndElementHandler = lambda name: end(_local(name))
    if text is not None:
        parser.CharacterDataHandler = text
    return parser


def _local(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    # The one name that Office uses twice in an element.
    return f"r:{local}" if namespace.endswith("/relationships") and "officeDocument" in namespace else local


def _refuse_entities(*_: object) -> None:
    raise Unreadable("Its XML declares entities, which are not read here.")
