"""Files of sessions: what they are, whose they are, and their text in pieces. The bytes are not here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from db.errors import DatabaseError
from db.ids import FileId, SessionId, UserId
from db.pool import Database
from db.records import FileRecord, PassageRecord, TextState
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


@dataclass(frozen=True, slots=True)
class ReadingDone:
    """What became of reading a file."""

    media_type: str
    state: TextState
    note: str | None
    passages: Sequence[tuple[int, str]] = ()
    characters: int = 0
    token_count: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that has what was looked for."""

    file_id: FileId
    name: str
    start: int
    content: str


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

    # --- text ------------------------------------------------------------------------------------------------------

    async def passages(
        self, file_id: FileId, session_id: SessionId, owner_id: UserId, *, offset: int, limit: int
    ) -> list[PassageRecord]:
        """The passages that have the `limit` characters from `offset` on, in their order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT p.file_id, p.start, p.content
                FROM file_passages p JOIN files f ON f.id = p.file_id
                WHERE f.id = $1 AND f.session_id = $2 AND f.owner_id = $3
                  AND p.start < $4::bigint + $5 AND p.start + length(p.content) > $4
                ORDER BY p.start
                """,
                file_id,
                session_id,
                owner_id,
                offset,
                limit,
            )
        return records(PassageRecord, rows)

    async def beginnings(
        self, session_id: SessionId, owner_id: UserId, wanted: Mapping[FileId, int]
    ) -> list[PassageRecord]:
        """The passages in which the first characters of these files are, as many of each as are wanted."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT p.file_id, p.start, p.content
                FROM unnest($3::uuid[], $4::integer[]) AS w (file_id, characters)
                JOIN files f ON f.id = w.file_id AND f.session_id = $1 AND f.owner_id = $2
                JOIN file_passages p ON p.file_id = f.id AND p.start < w.characters
                ORDER BY p.file_id, p.start
                """,
                session_id,
                owner_id,
                list(wanted.keys()),
                list(wanted.values()),
            )
        return records(PassageRecord, rows)

    async def search(self, session_id: SessionId, owner_id: UserId, q: str, *, limit: int) -> list[Found]:
        """Passages of the session's files that have any word of `q`, or `q` itself anywhere; the best first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT f.id AS file_id, f.name, p.start, p.content
                FROM files f JOIN file_passages p ON p.file_id = f.id,
                    LATERAL (SELECT replace(plainto_tsquery('simple', $3)::text, '&', '|')::tsquery) AS _ (words)
                WHERE f.session_id = $1 AND f.owner_id = $2
                  AND (p.search @@ words OR strpos(lower(p.content), lower($3)) > 0)
                ORDER BY strpos(lower(p.content), lower($3)) > 0 DESC, ts_rank(p.search, words) DESC, f.id DESC, p.start
                LIMIT $4
                """,
                session_id,
                owner_id,
                q,
                limit,
            )
        return records(Found, rows)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def begin_reading(self, file_id: FileId, *, patience: float) -> FileRecord | None:
        """Take on a file that waits to be read, for `patience` seconds; None if it waits no more."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                UPDATE files SET reading_attempts = reading_attempts + 1,
                                 reading_until = now() + make_interval(secs => $2)
                WHERE id = $1 AND text_state = 'waiting' RETURNING *
                """,
                file_id,
                patience,
            )
        return record_or_none(FileRecord, row)

    async def left_unread(self, *, attempts: int, limit: int) -> list[FileId]:
        """Files whose reading was broken off; those that this has happened to `attempts` times are given up."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                WITH due AS (
                    SELECT id, reading_attempts FROM files
                    WHERE text_state = 'waiting' AND reading_until < now() ORDER BY reading_until LIMIT $2
                ), given_up AS (
                    UPDATE files SET text_state = 'failed', reading_until = NULL,
                                     text_note = 'Reading it was broken off several times.'
                    FROM due WHERE files.id = due.id AND due.reading_attempts >= $1
                )
                SELECT id FROM due WHERE reading_attempts < $1
                """,
                attempts,
                limit,
            )
        return [row["id"] for row in rows]

    async def end_reading(self, file_id: FileId, done: ReadingDone) -> FileRecord | None:
        """Store what became of it; None if it waits no more."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                """
                UPDATE files SET media_type = $2, text_state = $3, text_note = $4, characters = $5, token_count = $6,
                                 reading_until = NULL
                WHERE id = $1 AND text_state = 'waiting' RETURNING *
                """,
                file_id,
                done.media_type,
                done.state,
                done.note,
                done.characters,
                done.token_count,
            )
            if row is not None and done.passages:
                await connection.execute(
                    """
                    INSERT INTO file_passages (file_id, start, content)
                    SELECT $1, start, content FROM unnest($2::integer[], $3::text[]) AS _ (start, content)
                    """,
                    file_id,
                    [start for start, _ in done.passages],
                    [content for _, content in done.passages],
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
