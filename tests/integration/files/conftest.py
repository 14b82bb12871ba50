"""A file service without the front door, over a database and a directory of its own."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db.ids import SessionId, UserId, new_id
from db.pool import Database
from db.records import FileRecord
from db.stores.audit import AuditStore
from db.stores.file_texts import FileTextStore
from db.stores.files import FileStore
from services.audit import AuditLog
from services.context.tokens import TokenCounter
from services.documents.reader import DocumentReader, ReaderLimits
from services.files.intake import FileLimits, Intake
from services.files.readings import Readings
from services.files.service import FileService
from services.files.vault import Vault
from services.telemetry.meters import Meters

MIB = 1_048_576
READER = ReaderLimits(
    memory_bytes=768 * MIB,
    cpu_seconds=10,
    wall_seconds=20,
    characters=1_000_000,
    unpacked_bytes=64 * MIB,
    pixels=25_000_000,
    picture_bytes=40 * MIB,
    at_once=2,
)
FILES = FileLimits(bytes=30 * MIB, per_session=100, bytes_per_user=1000 * MIB)


@dataclass(frozen=True)
class Desk:
    """An owner with a session, and all that keeps files."""

    owner_id: UserId
    session_id: SessionId
    database: Database
    store: FileStore
    texts: FileTextStore
    vault: Vault
    reader: DocumentReader
    readings: Readings
    files: FileService

    def with_limits(self, limits: FileLimits) -> FileService:
        """The same files under other limits."""
        intake = Intake(self.store, self.vault, self.reader, limits)
        return FileService(self.store, self.texts, self.vault, intake, self.readings, unread(self.database))

    async def put(self, data: bytes, name: str = "x.txt") -> FileRecord:
        """Upload a file."""

        async def pieces() -> AsyncGenerator[bytes, None]:
            for start in range(0, len(data), 65_536):
                yield data[start : start + 65_536]

        return await self.files.upload(self.owner_id, self.session_id, name, pieces())

    async def another_session(self) -> SessionId:
        """A further session of the owner."""
        return await _session(self.database, self.owner_id)


def unread(database: Database) -> AuditLog:
    """An audit log that nobody looks into here."""
    return AuditLog(AuditStore(database), Meters().audit, retention_days=1)


async def _session(database: Database, owner_id: UserId) -> SessionId:
    session_id = SessionId(new_id())
    async with database.connection() as connection:
        await connection.execute("insert into sessions (id, owner_id) values ($1, $2)", session_id, owner_id)
        await connection.execute("insert into journals (session_id) values ($1)", session_id)
    return session_id


@pytest.fixture(scope="module")
async def reader() -> AsyncGenerator[DocumentReader, None]:
    """What reads for all desks."""
    async with DocumentReader(READER) as reader:
        yield reader


@pytest.fixture(scope="module")
def tokens() -> TokenCounter:
    """What counts for all desks."""
    return TokenCounter()


@pytest.fixture
async def desk(database: Database, tmp_path: Path, reader: DocumentReader, tokens: TokenCounter) -> Desk:
    """A desk of a new owner."""
    owner_id = UserId(new_id())
    async with database.connection() as connection:
        await connection.execute("insert into users (id, display_name) values ($1, 'Somebody')", owner_id)
    store, texts, vault = FileStore(database), FileTextStore(database), Vault(tmp_path / "files")
    readings = Readings(texts, vault, reader, tokens, seconds=20)
    files = FileService(store, texts, vault, Intake(store, vault, reader, FILES), readings, unread(database))
    return Desk(owner_id, await _session(database, owner_id), database, store, texts, vault, reader, readings, files)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database, None]:
    """A database in which nobody else has files."""
    pool = await Database.connect(database_url, size=4)
    yield pool
    await pool.close()
