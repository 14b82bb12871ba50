"""Making a backup: the rows of one moment, and the bytes of the files that they name."""

from dataclasses import dataclass
from pathlib import Path

from db.ids import FileId
from db.snapshot import Snapshot, Table, snapshot
from services.backup.archive import PIECE, ArchiveWriter, writing
from services.backup.manifest import SECRET_KEY, Manifest, StepEntry, TableEntry
from services.files.vault import Vault


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup has."""

    rows: int
    files: int
    octets: int
    lost: int
    """Files whose bytes were missing in the service already."""


async def save(dsn: str, data_dir: Path, path: Path, *, version: str, secret_key: Path | None = None) -> Saved:
    """Write a backup of the database and of what lies beside it to `path`, which must not exist.

    The service may go on: what is said meanwhile is not in it. Memory does not grow with what there is. Raises
    `DatabaseUnreachable`, `FileExistsError` and `OSError`.
    """
    async with snapshot(dsn) as moment:
        with writing(path) as archive:
            return await _Saving(moment, archive, data_dir).everything(version, secret_key)


class _Saving:
    def __init__(self, moment: Snapshot, archive: ArchiveWriter, data_dir: Path) -> None:
        self._moment = moment
        self._archive = archive
        self._data_dir = data_dir
        self._files = 0

    async def everything(self, version: str, secret_key: Path | None) -> Saved:
        missing = await self._vault()
        # A file that was deleted while we were on our way to it is left out, as if that had been a moment earlier. One
        # that is there for everybody but whoever wants its bytes was lost before us, and somebody should know.
        lost = await self._moment.exist_now(missing)
        tables = [await self._table(table, missing) for table in await self._moment.tables()]
        # After the rows: a picture is kept before a row names it, and never thrown away.
        self._images()
        if secret_key is not None:
            self._put(SECRET_KEY, secret_key)
        manifest = Manifest(
            version,
            await self._moment.taken_at(),
            tuple(StepEntry(step.version, step.name, step.sha256) for step in await self._moment.steps()),
            tuple(tables),
            self._archive.entries,
            self._archive.checksums_sha256,
            secret_key is not None,
            tuple(sorted(map(str, lost))),
        )
        self._archive.finish(manifest)
        return Saved(sum(table.rows for table in tables), self._files, self._archive.octets, len(lost))

    async def _vault(self) -> set[FileId]:
        """The bytes of all files; returns those that are not there."""
        folder = await self._moment.vault()
        missing: set[FileId] = set()
        if folder is None:
            return missing
        vault = Vault(self._data_dir / "files" / folder)
        async for file_id in self._moment.files():
            try:
                self._put_file(vault, file_id)
            except FileNotFoundError:
                missing.add(file_id)
        return missing

    def _put_file(self, vault: Vault, file_id: FileId) -> None:
        place, view = vault.path(file_id), vault.view_path(file_id)
        self._put(f"files/{place.parent.name}/{place.name}", place)
        if view.exists():
            self._put(f"files/{view.parent.name}/{view.name}", view)

    async def _table(self, table: Table, without: set[FileId]) -> TableEntry:
        with self._archive.entry(f"tables/{table.name}", squeeze=True) as entry:

            async def take(piece: bytes) -> None:
                entry.write(piece)  # blocks, as all here does: whoever makes a backup has nothing else to do

            rows = await self._moment.copy(table, take, without=without)
        return TableEntry(table.name, table.columns, rows)

    def _images(self) -> None:
        for path in (self._data_dir / "images").glob("*/*.webp"):
            self._put(f"images/{path.parent.name}/{path.name}", path)

    def _put(self, name: str, path: Path) -> None:
        with path.open("rb") as source, self._archive.entry(name, squeeze=False) as entry:
            while piece := source.read(PIECE):
                entry.write(piece)
        self._files += 1
