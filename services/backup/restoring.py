"""Restoring a backup: all of it or nothing, into an empty database or in the place of one."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.ids import new_id
from db.migrate import Migration
from db.refill import Refill, current_vault, refill
from db.snapshot import LEFT_OUT, Step, Table
from services.backup.archive import ArchiveReader, reading
from services.backup.manifest import SECRET_KEY, BadBackup, Manifest


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored."""

    manifest: Manifest
    rows: int
    files: int


async def verify(path: Path) -> Manifest:
    """What a backup says about itself, after every byte of it has been read. Raises `BadBackup` and `OSError`."""

    def read() -> Manifest:
        with reading(path) as archive:
            archive.verify()
            return archive.manifest

    return await asyncio.to_thread(read)


async def restore(dsn: str, data_dir: Path, path: Path, known: Sequence[Migration], *, replace: bool) -> Restored:
    """Make the database what it was at the moment of the backup, and put the files beside it.

    With `replace` what was there before is gone. No service may run. Memory does not grow with what there is. Raises
    `BadBackup`, what `refill` raises, and `OSError`; then nothing has changed.
    """
    await verify(path)
    with reading(path) as archive:
        return await _Restoring(archive, data_dir).everything(dsn, known, replace=replace)


class _Restoring:
    def __init__(self, archive: ArchiveReader, data_dir: Path) -> None:
        self._archive = archive
        self._data_dir = data_dir
        self._vault = new_id()
        self._files = 0

    async def everything(self, dsn: str, known: Sequence[Migration], *, replace: bool) -> Restored:
        manifest = self._archive.manifest
        self._check_secret_key()
        before = await current_vault(dsn) if replace else None
        steps = [Step(step.version, step.name, step.sha256) for step in manifest.steps]
        try:
            async with refill(dsn, steps, known, replace=replace) as filling:
                rows = await self._rows(filling)
                await asyncio.to_thread(self._put_files)
                await filling.begin_anew(epoch=new_id(), vault=self._vault)
        except BaseException:
            await asyncio.to_thread(self._remove_vault, self._vault)
            raise
        if before is not None:
            await asyncio.to_thread(self._remove_vault, before)
        return Restored(manifest, rows, self._files)

    async def _rows(self, filling: Refill) -> int:
        total = 0
        for entry in self._archive.manifest.tables:
            if entry.name in LEFT_OUT:
                continue
            table = Table(entry.name, entry.columns)
            rows = await filling.fill(table, self._pieces(f"tables/{entry.name}"))
            if rows != entry.rows:
                raise BadBackup(f"{entry.name} has {rows} rows instead of {entry.rows}. Nothing was changed.")
            total += rows
        return total

    async def _pieces(self, name: str) -> AsyncGenerator[bytes, None]:
        pieces = self._archive.pieces(name)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece

    def _put_files(self) -> None:
        for name in self._archive.names:
            match name.split("/"):
                case ["files", folder, file]:
                    self._put(name, self._data_dir / "files" / str(self._vault) / folder / file)
                case ["images", owner, file]:
                    self._put(name, self._data_dir / "images" / owner / file)
                case ["secret_key"]:
                    self._put(name, self._data_dir / SECRET_KEY)
                case _:
                    pass
        os.sync()

    def _put(self, name: str, place: Path) -> None:
        """Write the entry's bytes, unless they are there: what has such a name never changes."""
        self._files += 1
        if place.exists():
            return
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = place.with_name(f"{place.name}.part")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for piece in self._archive.pieces(name):
                file.write(piece)
        draft.replace(place)

    def _check_secret_key(self) -> None:
        place = self._data_dir / SECRET_KEY
        if not self._archive.manifest.has_secret_key or not place.exists():
            return
        if place.read_bytes() != b"".join(self._archive.pieces(SECRET_KEY)):
            raise BadBackup(
                f"The backup has another secret key than {place}: move that away first. Nothing was changed."
            )

    def _remove_vault(self, vault: object) -> None:
        shutil.rmtree(self._data_dir / "files" / str(vault), ignore_errors=True)
