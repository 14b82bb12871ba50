"""The file of a backup: a ZIP archive, written and read as a stream, with a checksum for each entry.

tables/<name>          rows in COPY's text format
files/<xx>/<id>        the bytes of files, and their smaller pictures
images/<owner>/<id>    the pictures of personas
secret_key             only if it was asked for
checksums.txt          SHA-256 and name of each of the above
manifest.json          the last entry: a backup without it was not finished
"""

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from services.backup.manifest import CHECKSUMS, MANIFEST, BadBackup, Manifest, is_known_name

PIECE = 262_144
_LARGEST_MANIFEST = 16_777_216
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ArchiveWriter:
    """Writes a backup entry by entry. Blocks. Made by `writing`."""

    def __init__(self, archive: zipfile.ZipFile, checksums: IO[bytes]) -> None:
        self._archive = archive
        self._checksums = checksums
        self._checksums_digest = hashlib.sha256()
        self.entries = 0
        self.octets = 0

    @contextmanager
    def entry(self, name: str, *, squeeze: bool) -> Generator["EntryWriter", None, None]:
        """A new entry; what is written to it may be of any length."""
        with self._open(name, squeeze=squeeze) as file:
            writer = EntryWriter(file)
            yield writer
        line = f"{writer.sha256}  {name}\n".encode()
        self._checksums.write(line)
        self._checksums_digest.update(line)
        self.entries += 1
        self.octets += writer.octets

    @property
    def checksums_sha256(self) -> str:
        """Of the list of all entries so far."""
        return self._checksums_digest.hexdigest()

    def finish(self, manifest: Manifest) -> None:
        """Write the list and what the backup says about itself."""
        self._checksums.seek(0)
        with self._open(CHECKSUMS, squeeze=True) as file:
            while piece := self._checksums.read(PIECE):
                file.write(piece)
        with self._open(MANIFEST, squeeze=True) as file:
            file.write(manifest.to_json())

    def _open(self, name: str, *, squeeze: bool) -> IO[bytes]:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED if squeeze else zipfile.ZIP_STORED
        info.external_attr = 0o600 << 16
        return self._archive.open(info, "w", force_zip64=True)


class EntryWriter:
    """One entry that is being written. Blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.octets = 0

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._file.write(piece)
        self._digest.update(piece)
        self.octets += len(piece)

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()


@contextmanager
def writing(path: Path) -> Generator[ArchiveWriter, None, None]:
    """A backup that gets its name when it is whole, readable by nobody else. Raises `FileExistsError`."""
    if path.exists():
        raise FileExistsError(path)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)
    # In a folder of everybody's, somebody may have put a file or a link of theirs there.
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tempfile.TemporaryFile() as checksums:
            with zipfile.ZipFile(file, "w", compresslevel=1) as archive:
                yield ArchiveWriter(archive, checksums)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)  # unlike a rename, it puts itself in the place of nothing
    finally:
        unfinished.unlink(missing_ok=True)


class ArchiveReader:
    """Reads a backup. Blocks. Made by `reading`."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path
        self.manifest = Manifest.from_json(self._small(MANIFEST))

    @property
    def names(self) -> list[str]:
        """All entries but those about the backup itself."""
        return [name for name in self._archive.namelist() if name not in (MANIFEST, CHECKSUMS)]

    def pieces(self, name: str) -> Iterator[bytes]:
        """What stands in an entry. Raises `BadBackup`."""
        with told(self._path), self._archive.open(name) as file:
            while piece := file.read(PIECE):
                yield piece

    def verify(self) -> None:
        """Read all of it once. Raises `BadBackup` unless every byte is what was written."""
        names = self.names
        if strange := [name for name in names if not is_known_name(name)]:
            raise self._bad(f"it has an entry that no backup has: {strange[0]!r}")
        if len(names) != self.manifest.entries or len(set(names)) != len(names):
            raise self._bad("entries are missing or are there twice")
        digest = hashlib.sha256()
        checked = 0
        for line in self._checksums():
            digest.update(line)
            expected, _, name = line.decode().rstrip("\n").partition("  ")
            self._check(name, expected)
            checked += 1
        if digest.hexdigest() != self.manifest.checksums_sha256 or checked != len(names):
            raise self._bad("its list of checksums is not the one that was written")

    def _check(self, name: str, expected: str) -> None:
        digest = hashlib.sha256()
        for piece in self.pieces(name):
            digest.update(piece)
        if digest.hexdigest() != expected:
            raise self._bad(f"{name} is not what was written")

    def _checksums(self) -> Iterator[bytes]:
        with told(self._path), self._archive.open(CHECKSUMS) as file:
            yield from file

    def _small(self, name: str) -> bytes:
        with told(self._path), self._archive.open(name) as file:
            return file.read(_LARGEST_MANIFEST)

    def _bad(self, why: str) -> BadBackup:
        return BadBackup(f"{self._path} is damaged: {why}. Nothing was changed.")


@contextmanager
def reading(path: Path) -> Generator[ArchiveReader, None, None]:
    """A backup that was finished. Raises `BadBackup`, and `OSError` if the file cannot be read."""
    with told(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield ArchiveReader(archive, path)


@contextmanager
def told(path: Path) -> Generator[None, None, None]:
    """What a damaged archive makes of its reader, in our words."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadBackup(
            f"{path} is no whole backup: it is damaged, or its end is missing ({error}). Nothing was changed."
        ) from error
