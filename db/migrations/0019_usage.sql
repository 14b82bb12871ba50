-- What models were asked, and what it cost: one row for each part of a run, for each summary that was
-- asked for, and for each trial of a prompt or script.
-- No foreign keys but the owner's: whoever deletes a session has used what it cost all the same. Tokens are those that
-- the model's server has counted; `estimated_tokens` are our own count of what it has told nothing of.
CREATE TABLE usage_entries (
    run_id uuid NOT NULL,
    part text NOT NULL,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    session_id uuid,
    persona_id uuid,
    kind text NOT NULL,
    connection text,
    model text,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    thinking_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, part)
);
CREATE INDEX usage_entries_by_owner ON usage_entries (owner_id, at);

-- The work after a reply adds to its usage in several statements; whichever does, the parts are kept here.
CREATE FUNCTION keep_usage_after_replies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_entries AS known
        (run_id, part, owner_id, session_id, persona_id, kind, input_tokens, output_tokens, thinking_tokens)
    SELECT NEW.run_id, u.key, NEW.owner_id, NEW.session_id,
        coalesce((r.request ->> 'persona_id')::uuid, s.persona_id), split_part(u.key, '/', 1),
        coalesce((u.value ->> 'input_tokens')::bigint, 0), coalesce((u.value ->> 'output_tokens')::bigint, 0),
        coalesce((u.value ->> 'thinking_tokens')::bigint, 0)
    FROM jsonb_each(NEW.usage) AS u
    JOIN runs r ON r.id = NEW.run_id
    JOIN sessions s ON s.id = NEW.session_id
    ON CONFLICT (run_id, part) DO UPDATE SET input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, thinking_tokens = excluded.thinking_tokens;
    RETURN NULL;
END
$$;
CREATE TRIGGER post_responses_used AFTER UPDATE OF usage ON post_responses
    FOR EACH ROW WHEN (OLD.usage IS DISTINCT FROM NEW.usage) EXECUTE FUNCTION keep_usage_after_replies();

-- A summary says what it has cost if somebody asked for it; others belong to the run that they were made for.
CREATE FUNCTION keep_usage_of_summary() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_entries
        (run_id, part, owner_id, session_id, persona_id, kind, model, input_tokens, output_tokens, thinking_tokens)
    SELECT NEW.id, 'summary', s.owner_id, s.id, s.persona_id, 'summary', NEW.model,
        coalesce((NEW.usage ->> 'input_tokens')::bigint, 0), coalesce((NEW.usage ->> 'output_tokens')::bigint, 0),
        coalesce((NEW.usage ->> 'thinking_tokens')::bigint, 0)
    FROM sessions s WHERE s.id = NEW.session_id
    ON CONFLICT (run_id, part) DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER context_summaries_used AFTER INSERT OR UPDATE OF usage ON context_summaries
    FOR EACH ROW WHEN (NEW.usage IS NOT NULL) EXECUTE FUNCTION keep_usage_of_summary();

-- What is known of the time before.
INSERT INTO usage_entries
    (run_id, part, owner_id, session_id, persona_id, kind, connection, model, input_tokens, output_tokens,
     thinking_tokens, at)
SELECT r.id, 'reply', r.owner_id, r.session_id, coalesce((r.request ->> 'persona_id')::uuid, s.persona_id), 'reply',
    m.provider, m.model, coalesce((r.usage ->> 'input_tokens')::bigint, 0),
    coalesce((r.usage ->> 'output_tokens')::bigint, 0), coalesce((r.usage ->> 'thinking_tokens')::bigint, 0),
    r.finished_at
FROM runs r JOIN sessions s ON s.id = r.session_id LEFT JOIN messages m ON m.id = r.reply_message_id
WHERE r.state = 'finished' AND r.usage ->> 'input_tokens' IS NOT NULL AND r.finished_at IS NOT NULL
UNION ALL
SELECT p.run_id, u.key, p.owner_id, p.session_id, s.persona_id, split_part(u.key, '/', 1), NULL, NULL,
    coalesce((u.value ->> 'input_tokens')::bigint, 0), coalesce((u.value ->> 'output_tokens')::bigint, 0),
    coalesce((u.value ->> 'thinking_tokens')::bigint, 0), coalesce(p.finished_at, p.created_at)
FROM post_responses p JOIN sessions s ON s.id = p.session_id CROSS JOIN jsonb_each(p.usage) AS u;
