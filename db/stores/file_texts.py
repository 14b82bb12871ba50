"""The text of files, in pieces, and whose turn it is to read a file that has none yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.ids import FileId, SessionId, UserId
from db.pool import Database
from db.records import FileRecord, PassageRecord, TextState
from db.stores.rows import record_or_none, records


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


class FileTextStore:
    """What is written in the files of an owner's sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
