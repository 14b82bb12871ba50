"""Backups as commands: `python -m api backup FILE`, `verify FILE`, `restore FILE`. Each gives lines to be printed."""

from collections.abc import AsyncGenerator
from pathlib import Path

from api.settings import Settings
from api.supervisor import database, reached
from api.version import service_version
from db.migrate import read_migrations
from db.pool import Database
from db.stores.audit import AuditStore
from services.audit import Action, AuditLog
from services.backup.manifest import SECRET_KEY, Manifest
from services.backup.restoring import restore, verify
from services.backup.saving import save
from services.telemetry.meters import Meters

Lines = AsyncGenerator[str, None]

_KEY_APART = (
    "The secret key is not in it: keep {place} (or SECRET_KEY) somewhere else. Without it, saved keys of model servers "
    "cannot be read."
)


async def make_backup(settings: Settings, file: Path, *, with_secret_key: bool) -> Lines:
    """Write everything to `file`, beside a running service or without one."""
    key = settings.data_dir / SECRET_KEY
    async with reached(settings) as url:
        saved = await save(
            url,
            settings.data_dir,
            file,
            version=service_version(),
            secret_key=key if with_secret_key and key.exists() else None,
        )
        await _note(settings, url, "database.back_up", file)
    yield _described(file, await verify(file))
    if saved.lost:
        yield f"{saved.lost} files were missing in {settings.data_dir} already; the backup names them."
    if not (with_secret_key and key.exists()):
        yield _KEY_APART.format(place=key)


async def verify_backup(file: Path) -> Lines:
    """Read all of a backup and say what it is."""
    yield _described(file, await verify(file))


async def restore_backup(settings: Settings, file: Path, *, replace: bool) -> Lines:
    """Put everything back, into an empty database unless `replace`."""
    await verify(file)  # before a database is started
    async with database(settings) as at:
        restored = await restore(at.url, settings.data_dir, file, read_migrations(), replace=replace)
        await _note(settings, at.url, "database.restore", file)
    yield _described(file, restored.manifest)
    yield f"Restored: {restored.rows} rows and {restored.files} files. Everybody signs in again."
    if not restored.manifest.has_secret_key:
        yield _KEY_APART.format(place=settings.data_dir / SECRET_KEY)


async def _note(settings: Settings, url: str, action: Action, file: Path) -> None:
    """Put it into the audit log of that database. Nobody is named: whoever types a command needs no account."""
    store = await Database.connect(url, size=1)
    try:
        await AuditLog(AuditStore(store), Meters().audit, retention_days=settings.audit_days).note(
            None, action, file=file.name
        )
    finally:
        await store.close()


def _described(file: Path, manifest: Manifest) -> str:
    rows = sum(table.rows for table in manifest.tables)
    lost = f", {len(manifest.lost)} files were lost before" if manifest.lost else ""
    key = "with the secret key" if manifest.has_secret_key else "without the secret key"
    return (
        f"{file}: Colloquy {manifest.version}, schema {len(manifest.steps)}, "
        f"taken {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC, {rows} rows, {manifest.entries} entries, {key}{lost}. "
        "It is whole."
    )
