"""Files of sessions: what they are and whose they are. Their text is in `file_texts.py`, their bytes are on disk."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from db.errors import DatabaseError
from db.ids import FileId, SessionId, UserId
from db.pool import Database
from db.records import FileRecord, TextState
from db.stores.rows import record, record_or_none, records


class TooManyFiles(DatabaseError):
    """The session has as many files as it may have."""


class TooManyBytes(DatabaseError):
    """The owner's files have as many bytes as they may have."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose bytes are in their place."""

    id: FileId
    session_id: SessionId
    owner_id: UserId
    name: str
    media_type: str
    size: int
    sha256: str
    text_state: TextState
    width: int | None = None
    height: int | None = None
    view_type: str | None = None


class FileStore:
    """Files of an owner's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def vault(self, fresh: UUID) -> UUID:
        """The id of the folder in which the bytes lie: `fresh` if there was none yet."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                INSERT INTO file_vault (id) VALUES ($1)
                ON CONFLICT (singleton) DO UPDATE SET id = file_vault.id RETURNING id
                """,
                fresh,
            )

    async def add(self, new: NewFile, *, per_session: int, bytes_per_owner: int, patience: float) -> FileRecord | None:
        """Keep a file; None if the owner has no such session.

        A file that waits to be read is left to the caller for `patience` seconds. Raises `TooManyFiles`,
        `TooManyBytes`.
        """
        async with self._database.transaction() as connection:
            # One at a time for each owner, or two would both find the last place free.
            await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", new.owner_id)
            held = await connection.fetchval(
                "SELECT true FROM sessions WHERE id = $1 AND owner_id = $2 FOR KEY SHARE", new.session_id, new.owner_id
            )
            if not held:
                return None
            room = await connection.fetchrow(
                """
                SELECT count(*) FILTER (WHERE session_id = $2) AS files, coalesce(sum(size), 0)::bigint AS bytes
                FROM files WHERE owner_id = $1
                """,
                new.owner_id,
                new.session_id,
            )
            assert room is not None
            if room["files"] >= per_session:
                raise TooManyFiles(str(new.session_id))
            if room["bytes"] + new.size > bytes_per_owner:
                raise TooManyBytes(str(new.owner_id))
            row = await connection.fetchrow(
                """
                INSERT INTO files (id, session_id, owner_id, name, media_type, size, sha256, text_state, width, height,
                                   view_type, reading_until)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
                        CASE WHEN $8 = 'waiting' THEN now() + make_interval(secs => $12) END)
                RETURNING *
                """,
                new.id,
                new.session_id,
                new.owner_id,
                new.name,
                new.media_type,
                new.size,
                new.sha256,
                new.text_state,
                new.width,
                new.height,
                new.view_type,
                patience,
            )
        assert row is not None
        return record(FileRecord, row)

    async def room(self, session_id: SessionId, owner_id: UserId) -> tuple[int, int] | None:
        """How many files the session has, and the bytes of all the owner's files; None if there is no such session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT (SELECT count(*) FROM files WHERE session_id = s.id) AS files,
                       (SELECT coalesce(sum(size), 0)::bigint FROM files WHERE owner_id = s.owner_id) AS bytes
                FROM sessions s WHERE s.id = $1 AND s.owner_id = $2
                """,
                session_id,
                owner_id,
            )
        return None if row is None else (row["files"], row["bytes"])

    async def page(
        self, session_id: SessionId, owner_id: UserId, *, before: FileId | None, limit: int
    ) -> list[FileRecord]:
        """The session's files, newest first, those added before `before`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT * FROM files WHERE session_id = $1 AND owner_id = $2 AND ($3::uuid IS NULL OR id < $3)
                ORDER BY id DESC LIMIT $4
                """,
                session_id,
                owner_id,
                before,
                limit,
            )
        return records(FileRecord, rows)

    async def get(self, file_id: FileId, session_id: SessionId, owner_id: UserId) -> FileRecord | None:
        """One file of the owner's session."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM files WHERE id = $1 AND session_id = $2 AND owner_id = $3", file_id, session_id, owner_id
            )
        return record_or_none(FileRecord, row)

    async def among(
        self, file_ids: Collection[UUID], session_id: SessionId, owner_id: UserId
    ) -> dict[FileId, FileRecord]:
        """Those of these files that the owner's session has."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM files WHERE id = ANY($1::uuid[]) AND session_id = $2 AND owner_id = $3",
                list(file_ids),
                session_id,
                owner_id,
            )
        return {file.id: file for file in records(FileRecord, rows)}

    async def delete(self, file_id: FileId, session_id: SessionId, owner_id: UserId) -> bool:
        """Forget a file with its text; False if there is none."""
        async with self._database.connection() as connection:
            deleted = await connection.fetchval(
                "DELETE FROM files WHERE id = $1 AND session_id = $2 AND owner_id = $3 RETURNING true",
                file_id,
                session_id,
                owner_id,
            )
        return bool(deleted)

    async def ids_of(self, session_id: SessionId, owner_id: UserId) -> list[FileId]:
        """All files of the owner's session."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM files WHERE session_id = $1 AND owner_id = $2", session_id, owner_id
            )
        return [row["id"] for row in rows]

    async def copy(
        self, file_id: FileId, copy_id: FileId, owner_id: UserId, *, source: SessionId, target: SessionId
    ) -> FileRecord | None:
        """Make `copy_id` in one session of the owner what `file_id` is in another; None if either is missing."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """
                INSERT INTO files (id, session_id, owner_id, name, media_type, size, sha256, text_state, text_note,
                                   characters, token_count, width, height, view_type, reading_until)
                SELECT $2, s.id, f.owner_id, f.name, f.media_type, f.size, f.sha256, f.text_state, f.text_note,
                       f.characters, f.token_count, f.width, f.height, f.view_type,
                       CASE WHEN f.text_state = 'waiting' THEN now() END
                FROM files f JOIN sessions s ON s.owner_id = f.owner_id
                WHERE f.id = $1 AND f.owner_id = $3 AND f.session_id = $4 AND s.id = $5 FOR KEY SHARE OF s
                RETURNING *
                """,
                file_id,
                copy_id,
                owner_id,
                source,
                target,
            )
            if row is not None:
                await connection.execute(
                    """
                    INSERT INTO file_passages (file_id, start, content)
                    SELECT $2, start, content FROM file_passages WHERE file_id = $1
                    """,
                    file_id,
                    copy_id,
                )
        return record_or_none(FileRecord, row)

    async def unknown_among(self, ids: Collection[FileId]) -> list[FileId]:
        """Those of these ids that no file has."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT id FROM unnest($1::uuid[]) AS _ (id)
                WHERE NOT EXISTS (SELECT FROM files WHERE files.id = _.id)
                """,
                list(ids),
            )
        return [row["id"] for row in rows]
