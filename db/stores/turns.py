"""What a turn needs of its session before a module speaks, and what its modules leave for the turns to come."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from db.ids import MessageId, ModuleId, RunId, SessionId, UserId
from db.pool import Database
from db.records import ResultState


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The newest result of a module in a session; after a failure its text and outputs are the last good ones."""

    run_id: RunId
    state: ResultState
    text: str
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnRow:
    """What is stored of a turn's modules: their versions, and what they gave and remember in the session.

    `user_texts` are what the user said last, newest first, as many as any of the modules looks at.
    """

    versions: Mapping[ModuleId, int]
    results: Mapping[ModuleId, StoredResult]
    variables: Mapping[ModuleId, Mapping[str, Any]]
    user_texts: list[str]


@dataclass(frozen=True, slots=True)
class NewResult:
    """How a module's run ended. A failed one has neither text nor outputs, and changes no variable."""

    module_id: ModuleId
    state: ResultState
    text: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Those that it has set."""


@dataclass(frozen=True, slots=True)
class NewTrace:
    """A prompt, and how it came about."""

    prompt: str
    trace: Mapping[str, Any]


class TurnStore:
    """Reads and keeps what belongs to turns: one statement for each, so that nobody ever sees half of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        session_id: SessionId,
        owner_id: UserId,
        leaf: MessageId,
        *,
        names: Collection[str],
        ids: Collection[ModuleId],
        levels: int,
        turns: int,
        steps: int,
    ) -> TurnRow:
        """The owner's modules with those names or ids, and all that these use, `levels` deep.

        The user's texts are those of the branch that ends with `leaf`, `turns` of them at least; no more than `steps`
        messages are looked at.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                """
                WITH RECURSIVE used AS (
                    SELECT named.*, 0 AS level FROM (
                        SELECT id, version, trigger_depth, refers_to, analysis -> 'references' AS runs
                        FROM modules WHERE owner_id = $2 AND name = ANY ($4::text[])
                        UNION ALL
                        SELECT id, version, trigger_depth, refers_to, analysis -> 'references'
                        FROM modules WHERE owner_id = $2 AND id = ANY ($5::uuid[])
                    ) AS named
                    UNION
                    SELECT m.id, m.version, m.trigger_depth, m.refers_to, m.analysis -> 'references', used.level + 1
                    FROM used CROSS JOIN LATERAL (
                        SELECT unnest(used.refers_to) AS name
                        UNION SELECT jsonb_array_elements_text(coalesce(used.runs, '[]'))
                    ) AS other CROSS JOIN LATERAL (
                        SELECT * FROM modules WHERE owner_id = $2 AND name = other.name LIMIT 1
                    ) AS m
                    WHERE used.level < $6 AND (used.refers_to <> '{}' OR used.runs <> '[]')
                ), known AS (
                    SELECT DISTINCT ON (id) id, version, trigger_depth FROM used ORDER BY id
                ), mine AS (
                    SELECT id FROM sessions WHERE id = $1 AND owner_id = $2
                ), wanted AS (
                    SELECT greatest($7, max(trigger_depth)) AS texts FROM known
                ), path AS (
                    SELECT m.id, m.parent_id, m.role, m.content, 1 AS depth, (m.role = 'user')::int AS said
                    FROM mine JOIN messages m ON m.session_id = mine.id AND m.id = $3
                    UNION ALL
                    SELECT m.id, m.parent_id, m.role, m.content, path.depth + 1, path.said + (m.role = 'user')::int
                    FROM path
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE id = path.parent_id AND session_id = $1 LIMIT 1
                    ) AS m
                    WHERE path.depth < $8 AND path.said < (SELECT texts FROM wanted)
                )
                SELECT
                    ARRAY(SELECT id FROM known ORDER BY id) AS ids,
                    ARRAY(SELECT version FROM known ORDER BY id) AS versions,
                    ARRAY(SELECT content FROM path WHERE role = 'user' ORDER BY depth) AS user_texts,
                    (
                        SELECT jsonb_object_agg(r.module_id, jsonb_build_object(
                            'run_id', r.run_id, 'state', r.state, 'text', r.text, 'outputs', r.outputs))
                        FROM mine JOIN module_results r ON r.session_id = mine.id
                        WHERE r.module_id IN (SELECT id FROM known)
                    ) AS results,
                    (
                        SELECT jsonb_object_agg(module_id, all_of_them) FROM (
                            SELECT v.module_id, jsonb_object_agg(v.name, v.value) AS all_of_them
                            FROM mine JOIN module_variables v ON v.session_id = mine.id
                            WHERE v.module_id IN (SELECT id FROM known) GROUP BY v.module_id
                        ) AS of_each
                    ) AS variables
                """,
                session_id,
                owner_id,
                leaf,
                list(names),
                list(ids),
                levels,
                turns,
                steps,
            )
        assert row is not None
        results: dict[str, dict[str, Any]] = row["results"] or {}
        variables: dict[str, dict[str, Any]] = row["variables"] or {}
        return TurnRow(
            dict(zip(row["ids"], row["versions"], strict=True)),
            {ModuleId(UUID(id)): _result(found) for id, found in results.items()},
            {ModuleId(UUID(id)): values for id, values in variables.items()},
            row["user_texts"],
        )

    async def keep(
        self,
        run_id: RunId,
        owner_id: UserId,
        results: Collection[NewResult],
        *,
        fence: int,
        trace: NewTrace | None = None,
        after: Mapping[str, Any] | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store all that a run's modules gave, or nothing; False if whoever holds that fence must not write any more.

        The fence is that of the session's lease or of the work after the run's reply. Doing it again changes nothing.
        What a later run has given or set is never replaced, a failure keeps the last good text, and what belongs to a
        module that is gone is dropped. `trace` goes in place of the run's; `after` is added to it: what came of
        modules after the reply, by name. `usage` is added to that of the work after the reply, by a name for each part.
        """
        async with self._database.connection() as connection:
            kept = await connection.fetchval(
                """
                WITH mine AS (
                    SELECT r.id, r.session_id, r.first_seq FROM runs r JOIN sessions s ON s.id = r.session_id
                    WHERE r.id = $1 AND r.owner_id = $2 AND (
                        EXISTS (SELECT FROM journals j
                                WHERE j.session_id = r.session_id AND j.run_id = r.id AND j.fence = $3)
                        OR EXISTS (SELECT FROM post_responses p
                                   WHERE p.run_id = r.id AND p.state = 'working' AND p.fence = $3)
                    )
                    FOR KEY SHARE OF s
                ), given AS (
                    SELECT mine.*, m.id AS module_id, g.state, g.text, g.outputs, g.variables
                    FROM mine CROSS JOIN jsonb_to_recordset($4)
                        AS g (module_id uuid, state text, text text, outputs jsonb, variables jsonb)
                    JOIN modules m ON m.id = g.module_id AND m.owner_id = $2
                    ORDER BY m.id
                    FOR KEY SHARE OF m
                ), stored AS (
                    INSERT INTO module_results AS known (session_id, module_id, run_id, run_seq, state, text, outputs)
                    SELECT session_id, module_id, id, first_seq, state, text, outputs FROM given
                    ON CONFLICT (session_id, module_id) DO UPDATE SET
                        run_id = excluded.run_id, run_seq = excluded.run_seq, state = excluded.state,
                        created_at = now(),
                        text = CASE excluded.state WHEN 'failed' THEN known.text ELSE excluded.text END,
                        outputs = CASE excluded.state WHEN 'failed' THEN known.outputs ELSE excluded.outputs END
                    WHERE known.run_seq <= excluded.run_seq
                    RETURNING module_id
                ), remembered AS (
                    -- Only with the result: whose result came too late, its variables did so too.
                    INSERT INTO module_variables (session_id, module_id, name, value)
                    SELECT session_id, module_id, variable.key, variable.value
                    FROM stored JOIN given USING (module_id) CROSS JOIN LATERAL jsonb_each(variables) AS variable
                    ORDER BY module_id, variable.key
                    ON CONFLICT (session_id, module_id, name) DO UPDATE SET value = excluded.value
                ), traced AS (
                    INSERT INTO run_traces (run_id, session_id, prompt, trace)
                    SELECT id, session_id, $5::text, $6::jsonb FROM mine WHERE $5::text IS NOT NULL
                    ON CONFLICT (run_id) DO UPDATE SET prompt = excluded.prompt, trace = excluded.trace
                ), followed AS (
                    UPDATE run_traces t
                    SET trace = t.trace || jsonb_build_object('after', coalesce(t.trace -> 'after', '{}') || $7::jsonb)
                    FROM mine WHERE t.run_id = mine.id AND $7::jsonb IS NOT NULL
                ), spent AS (
                    UPDATE post_responses p SET usage = p.usage || $8::jsonb
                    FROM mine WHERE p.run_id = mine.id AND $8::jsonb IS NOT NULL
                )
                SELECT true FROM mine
                """,
                run_id,
                owner_id,
                fence,
                list(results),
                None if trace is None else trace.prompt,
                None if trace is None else trace.trace,
                after,
                usage,
            )
        return kept is True


def _result(found: Mapping[str, Any]) -> StoredResult:
    return StoredResult(RunId(UUID(found["run_id"])), found["state"], found["text"], found["outputs"])
