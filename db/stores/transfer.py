"""Whole sessions, out of the database and into it again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from db.ids import MessageId, SessionId, UserId
from db.pool import Database
from db.records import ContextItemRecord, FileRecord, MemoryRecord, MessageRecord, SessionRecord
from db.stores.rows import record, record_or_none, records

if TYPE_CHECKING:
    from db.pool import PooledConnection

T = TypeVar("T")

_WRITTEN_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """What stands in the context for a message and everything before it."""

    kind: str
    text: str
    summarized_messages: int
    tokens_before: int
    model: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class WholeMessage:
    """A message with what the context tells of it."""

    message: MessageRecord
    stopped_by: str | None
    items: Sequence[ContextItemRecord]
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class Result:
    """The newest result of a module, by the module's name."""

    module: str
    state: str
    text: str
    outputs: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Variable:
    """What a module's script remembers, by the module's name."""

    module: str
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Remains:
    """What belongs to a session beside its messages."""

    variables: Sequence[Variable]
    results: Sequence[Result]
    memories: Sequence[MemoryRecord]
    files: Sequence[FileRecord]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored as it was; `context_tokens` is None if it stands for itself in the context."""

    id: MessageId
    parent_id: MessageId | None
    fields: Mapping[str, Any]
    token_count: int
    context_tokens: int | None
    created_at: datetime
    updated_at: datetime
    items: Sequence[ContextItemRecord]
    summary: Summary | None
    summary_tokens: int = 0


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be stored as it was."""

    id: UUID
    content: str
    first_message: int | None
    last_message: int | None
    metadata: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to be stored with everything that belongs to it."""

    id: SessionId
    fields: Mapping[str, Any]
    created_at: datetime
    active: MessageId | None
    messages: Sequence[NewMessage]
    variables: Sequence[Variable]
    results: Sequence[Result]
    memories: Sequence[NewMemory]


class TransferStore:
    """Reads and writes sessions as wholes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def session(self, session_id: SessionId, owner_id: UserId) -> tuple[SessionRecord, str | None] | None:
        """The owner's session, and the name of its persona."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id, p.name AS persona_name
                FROM sessions s JOIN journals j ON j.session_id = s.id LEFT JOIN personas p ON p.id = s.persona_id
                WHERE s.id = $1 AND s.owner_id = $2
                """,
                session_id,
                owner_id,
            )
        found = record_or_none(SessionRecord, row)
        return None if row is None or found is None else (found, row["persona_name"])

    async def messages(
        self, session_id: SessionId, owner_id: UserId, *, after: MessageId | None, limit: int
    ) -> list[WholeMessage]:
        """The oldest `limit` messages of all branches after the message `after`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT m.*, s.kind, s.text, s.summarized_messages, s.tokens_before, s.model AS summary_model,
                       s.created_at AS summary_at,
                       (SELECT jsonb_agg(jsonb_build_array(i.body, i.token_count) ORDER BY i.position)
                        FROM context_items i WHERE i.message_id = m.id) AS items
                FROM messages m LEFT JOIN context_summaries s ON s.message_id = m.id
                WHERE m.session_id = $1 AND EXISTS (SELECT FROM sessions WHERE id = $1 AND owner_id = $2)
                  AND ($3::uuid IS NULL OR m.id > $3)
                ORDER BY m.id LIMIT $4
                """,
                session_id,
                owner_id,
                after,
                limit,
            )
        return [
            WholeMessage(
                record(MessageRecord, row),
                row["stopped_by"],
                [ContextItemRecord(body, tokens) for body, tokens in row["items"] or ()],
                Summary(
                    row["kind"],
                    row["text"],
                    row["summarized_messages"],
                    row["tokens_before"],
                    row["summary_model"],
                    row["summary_at"],
                )
                if row["kind"]
                else None,
            )
            for row in rows
        ]

    async def remains(self, session_id: SessionId, owner_id: UserId) -> Remains:
        """What belongs to the owner's session beside its messages."""
        async with self._database.connection() as connection:
            variables = await connection.fetch(
                """
                SELECT m.name AS module, v.name, v.value FROM module_variables v JOIN modules m ON m.id = v.module_id
                WHERE v.session_id = $1 AND m.owner_id = $2 ORDER BY m.name, v.name
                """,
                session_id,
                owner_id,
            )
            results = await connection.fetch(
                """
                SELECT m.name AS module, r.state, r.text, r.outputs, r.created_at
                FROM module_results r JOIN modules m ON m.id = r.module_id
                WHERE r.session_id = $1 AND m.owner_id = $2 ORDER BY m.name
                """,
                session_id,
                owner_id,
            )
            memories = await connection.fetch(
                "SELECT * FROM memories WHERE session_id = $1 AND owner_id = $2 ORDER BY id", session_id, owner_id
            )
            files = await connection.fetch(
                "SELECT * FROM files WHERE session_id = $1 AND owner_id = $2 ORDER BY id", session_id, owner_id
            )
        return Remains(
            records(Variable, variables),
            records(Result, results),
            records(MemoryRecord, memories),
            records(FileRecord, files),
        )

    async def write(self, owner_id: UserId, new: NewSession) -> SessionRecord:
        """Store a session with all that belongs to it, or nothing. What belongs to unknown modules is left out."""
        async with self._database.transaction() as connection:
            await connection.execute(
                """
                WITH journal AS (
                    INSERT INTO journals (session_id) VALUES ($1)
                )
                INSERT INTO sessions (id, owner_id, persona_id, title, title_is_given, pinned, connection, model,
                                      controls, metadata, tools, active_leaf_id, created_at)
                SELECT $1, $2, (SELECT id FROM personas WHERE owner_id = $2 AND name = given ->> 'persona'),
                       given ->> 'title', (given ->> 'title_is_given')::boolean, (given ->> 'pinned')::boolean,
                       given ->> 'connection', given ->> 'model', given -> 'controls', given -> 'metadata',
                       given -> 'tools', $4, $5
                FROM (SELECT $3::jsonb) AS _ (given)
                """,
                new.id,
                owner_id,
                dict(new.fields),
                new.active,
                new.created_at,
            )
            for messages in _chunks(new.messages):
                await _write_messages(connection, new.id, messages)
            items = [
                (message.id, position, item) for message in new.messages for position, item in enumerate(message.items)
            ]
            for some in _chunks(items):
                await _write_items(connection, new.id, some)
            summaries = [(one.id, one.summary, one.summary_tokens) for one in new.messages if one.summary is not None]
            await connection.executemany(
                """
                INSERT INTO context_summaries (id, session_id, message_id, kind, text, token_count,
                                               summarized_messages, tokens_before, model, created_at)
                VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7, $8, $9)
                """,
                [
                    (new.id, id, s.kind, s.text, tokens, s.summarized_messages, s.tokens_before, s.model, s.created_at)
                    for id, s, tokens in summaries
                ],
            )
            await connection.executemany(
                """
                INSERT INTO module_variables (session_id, module_id, name, value)
                SELECT $1, id, $4, $5 FROM modules WHERE owner_id = $2 AND name = $3 ON CONFLICT DO NOTHING
                """,
                [(new.id, owner_id, one.module, one.name, one.value) for one in new.variables],
            )
            await connection.executemany(
                """
                INSERT INTO module_results (session_id, module_id, run_id, run_seq, state, text, outputs, created_at)
                SELECT $1, id, gen_random_uuid(), 0, $4, $5, $6, $7 FROM modules WHERE owner_id = $2 AND name = $3
                ON CONFLICT DO NOTHING
                """,
                [
                    (new.id, owner_id, one.module, one.state, one.text, one.outputs, one.created_at)
                    for one in new.results
                ],
            )
            await connection.executemany(
                """
                INSERT INTO memories (id, session_id, owner_id, content, first_message, last_message, metadata,
                                      created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                """,
                [
                    (
                        one.id,
                        new.id,
                        owner_id,
                        one.content,
                        one.first_message,
                        one.last_message,
                        dict(one.metadata),
                        one.created_at,
                    )
                    for one in new.memories
                ],
            )
            row = await connection.fetchrow(
                """
                SELECT s.*, j.last_seq, j.run_id AS active_run_id
                FROM sessions s JOIN journals j ON j.session_id = s.id WHERE s.id = $1
                """,
                new.id,
            )
        assert row is not None
        return record(SessionRecord, row)


def _chunks(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few at a time: the driver puts all that it is given into one message without a pause for anybody."""
    for start in range(0, len(whole), _WRITTEN_AT_ONCE):
        yield whole[start : start + _WRITTEN_AT_ONCE]


async def _write_messages(
    connection: "PooledConnection", session_id: SessionId, messages: Sequence[NewMessage]
) -> None:
    await connection.execute(
        """
        INSERT INTO messages (id, session_id, parent_id, role, content, parts, token_count, finish_reason,
                              provider, model, metadata, created_at, updated_at, context_tokens, stopped_by)
        SELECT m.id, $1, m.parent_id, given ->> 'role', given ->> 'content', given -> 'parts', m.token_count,
               given ->> 'finish_reason', given ->> 'provider', given ->> 'model', given -> 'metadata',
               m.created_at, m.updated_at, m.context_tokens, given ->> 'stopped_by'
        FROM unnest($2::uuid[], $3::uuid[], $4::jsonb[], $5::int[], $6::int[], $7::timestamptz[],
                    $8::timestamptz[])
            AS m (id, parent_id, given, token_count, context_tokens, created_at, updated_at)
        """,
        session_id,
        [message.id for message in messages],
        [message.parent_id for message in messages],
        [dict(message.fields) for message in messages],
        [message.token_count for message in messages],
        [message.context_tokens for message in messages],
        [message.created_at for message in messages],
        [message.updated_at for message in messages],
    )


async def _write_items(
    connection: "PooledConnection",
    session_id: SessionId,
    items: Sequence[tuple[MessageId, int, ContextItemRecord]],
) -> None:
    await connection.execute(
        """
        INSERT INTO context_items (session_id, message_id, position, body, token_count)
        SELECT $1, i.message_id, i.position, i.body, i.token_count
        FROM unnest($2::uuid[], $3::int[], $4::jsonb[], $5::int[])
            AS i (message_id, position, body, token_count)
        """,
        session_id,
        [message_id for message_id, _, _ in items],
        [position for _, position, _ in items],
        [item.body for _, _, item in items],
        [item.token_count for _, _, item in items],
    )
