"""What a backup says about itself."""

import re
from dataclasses import dataclass
from datetime import datetime

import orjson

FORMAT = "colloquy-backup"
FORMAT_VERSION = 1

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.txt"
SECRET_KEY = "secret_key"  # noqa: S105 - a name

_ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAMES = re.compile(
    rf"tables/[a-z][a-z0-9_]{{0,62}}|files/[0-9a-f]{{2}}/{_ID}(?:\.view)?|images/{_ID}/{_ID}\.webp|{SECRET_KEY}"
)


class BadBackup(Exception):
    """The file is no backup that can be used. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A table in a backup."""

    name: str
    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class StepEntry:
    """A migration that the backup's database had applied."""

    version: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is to be known before restoring. `lost` are files whose bytes were missing already."""

    version: str
    taken_at: datetime
    steps: tuple[StepEntry, ...]
    tables: tuple[TableEntry, ...]
    entries: int
    checksums_sha256: str
    has_secret_key: bool
    lost: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """As it stands in the backup."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION}
        return orjson.dumps({**head, **fields}, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Raises `BadBackup`."""
        try:
            found = orjson.loads(data)
            if found.pop("format") != FORMAT:
                raise BadBackup("It is not a backup of Colloquy.")
            if (version := found.pop("format_version")) != FORMAT_VERSION:
                raise BadBackup(f"It has format {version}, and this Colloquy reads format {FORMAT_VERSION}.")
            found["taken_at"] = datetime.fromisoformat(found["taken_at"])
            found["steps"] = tuple(StepEntry(**step) for step in found["steps"])
            found["tables"] = tuple(
                TableEntry(table["name"], tuple(table["columns"]), table["rows"]) for table in found["tables"]
            )
            return cls(**found | {"lost": tuple(found["lost"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadBackup("What it says about itself cannot be read.") from error


def is_known_name(name: str) -> bool:
    """Whether a backup may have an entry of that name: no other one is ever written to a disk."""
    return _NAMES.fullmatch(name) is not None
