-- Every row belongs to somebody: without accounts to the one local owner, who has neither e-mail nor password.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    display_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    welcomed_at timestamptz
);

CREATE TABLE personas (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    slug text NOT NULL,
    description text NOT NULL DEFAULT '',
    template text NOT NULL DEFAULT '',
    mode text NOT NULL DEFAULT 'reactive' CHECK (mode IN ('reactive', 'autonomous')),
    first_message text,
    connection text,
    model text,
    controls jsonb NOT NULL DEFAULT '{}',
    tools jsonb NOT NULL DEFAULT '{}',
    image text,
    schedule jsonb,
    is_active boolean NOT NULL DEFAULT true,
    refers_to text[] NOT NULL DEFAULT '{}',
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name),
    UNIQUE (owner_id, slug)
);
CREATE INDEX personas_by_owner ON personas (owner_id, id DESC);
CREATE INDEX personas_by_reference ON personas USING gin (refers_to);

ALTER TABLE users ADD COLUMN default_persona_id uuid REFERENCES personas ON DELETE SET NULL;
CREATE INDEX users_by_default_persona ON users (default_persona_id) WHERE default_persona_id IS NOT NULL;

CREATE TABLE modules (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,49}$'),
    description text NOT NULL DEFAULT '',
    type text NOT NULL DEFAULT 'simple' CHECK (type IN ('simple', 'advanced')),
    content text NOT NULL DEFAULT '',
    script text NOT NULL DEFAULT '',
    trigger_pattern text,
    trigger_depth integer NOT NULL DEFAULT 1,
    execution_context text NOT NULL DEFAULT 'IMMEDIATE'
        CHECK (execution_context IN ('IMMEDIATE', 'POST_RESPONSE', 'ON_DEMAND')),
    timeout_ms integer,
    is_active boolean NOT NULL DEFAULT true,
    requires_ai boolean NOT NULL DEFAULT false,
    analysis jsonb,
    refers_to text[] NOT NULL DEFAULT '{}',
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name)
);
CREATE INDEX modules_by_owner ON modules (owner_id, id DESC);
CREATE INDEX modules_by_reference ON modules USING gin (refers_to);

-- Modules attached to a persona beside those that its template names.
CREATE TABLE persona_modules (
    persona_id uuid NOT NULL REFERENCES personas ON DELETE CASCADE,
    module_id uuid NOT NULL REFERENCES modules ON DELETE CASCADE,
    position integer NOT NULL,
    PRIMARY KEY (persona_id, module_id)
);
CREATE INDEX persona_modules_by_module ON persona_modules (module_id);

-- `context_version` grows whenever what was said is changed afterwards: a summary of what is no longer true must not be
-- stored.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    persona_id uuid REFERENCES personas ON DELETE SET NULL,
    title text,
    pinned boolean NOT NULL DEFAULT false,
    connection text,
    model text,
    controls jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    active_leaf_id uuid,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    title_is_given boolean NOT NULL DEFAULT false,
    tools jsonb NOT NULL DEFAULT '{}',
    context_version bigint NOT NULL DEFAULT 0
);
CREATE INDEX sessions_by_owner ON sessions (owner_id, id DESC);
CREATE INDEX sessions_by_persona ON sessions (persona_id, id DESC);

-- The head of a session's journal, and the lease of the replica that may write it. Apart from `sessions` because
-- it changes with every commit of a running reply: a narrow row with room to stay on its page.
CREATE TABLE journals (
    session_id uuid PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    last_seq bigint NOT NULL DEFAULT 0,
    kept_after bigint NOT NULL DEFAULT 0,
    run_id uuid,
    replica_id uuid,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    flush_id bigint NOT NULL DEFAULT 0,
    flushed_to bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 40);
CREATE INDEX journals_under_lease ON journals (session_id) WHERE run_id IS NOT NULL;

-- No foreign key: rows are only ever inserted by statements that hold the lock of the session's journal row,
-- and deleted with it. A check per event would be the dearest part of writing a delta.
CREATE TABLE events (
    session_id uuid NOT NULL,
    seq bigint NOT NULL,
    run_id uuid,
    type text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (session_id, seq)
);

-- `context` tells what filled the model's window, in tokens.
CREATE TABLE runs (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    client_message_id text NOT NULL,
    user_message_id uuid NOT NULL,
    reply_message_id uuid,
    state text NOT NULL CHECK (state IN ('queued', 'running', 'finished')),
    request jsonb NOT NULL,
    interrupt_by text,
    finish_reason text,
    error jsonb,
    usage jsonb,
    timings jsonb,
    first_seq bigint NOT NULL,
    last_seq bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    context jsonb,
    handed_to uuid,
    credential_id uuid,
    UNIQUE (session_id, client_message_id)
);
CREATE UNIQUE INDEX runs_one_running ON runs (session_id) WHERE state = 'running';
CREATE INDEX runs_unfinished ON runs (session_id, first_seq) WHERE state <> 'finished';
CREATE INDEX runs_finished ON runs (finished_at) WHERE state = 'finished';
CREATE INDEX runs_by_session ON runs (session_id, id DESC);

-- The work that is left when a reply is closed, one row for each run that has any. `position` is the run's first in
-- the session's journal: the order in which the work is done. `last_seq` is the newest event that it has shown. With
-- `is_told` all is told of the run, and only `jobs` are left, which the service does for itself; `usage` is what these
-- have cost. No foreign keys but the one: the row is made and deleted with its run.
CREATE TABLE post_responses (
    run_id uuid PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    session_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    position bigint NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'working', 'done')),
    replica_id uuid,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    interrupt_by text,
    last_seq bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    jobs text[] NOT NULL DEFAULT '{}',
    is_told boolean NOT NULL DEFAULT false,
    usage jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX post_responses_unfinished ON post_responses (session_id, position) WHERE state <> 'done';

-- Every call of a tool: that it is about to be made is written before it is made, so that nobody ever makes it again.
-- `arguments` are those that it was made with. A call that has ended has a `result`, the whole of it; what a model and
-- a person were told of it may be less. `parameters` describe what somebody who is asked may put in their place.
CREATE TABLE tool_calls (
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    run_id uuid NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    server text,
    name_there text NOT NULL,
    arguments text NOT NULL,
    state text NOT NULL
        CHECK (state IN ('waiting', 'approved', 'running', 'completed', 'failed', 'rejected', 'interrupted')),
    reason text,
    parameters jsonb,
    result text,
    told text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    decided_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (session_id, run_id, id)
);
CREATE INDEX tool_calls_by_id ON tool_calls (session_id, id);

-- `parent_id` makes the tree; it has no foreign key because a reply is put between two messages that are there already:
-- one that waits for the reply of the run `waits_for` moves behind it.
-- `context_tokens` is what a message's items cost together, null where it has none. `stopped_by` is who stopped a reply
-- that was interrupted: a person, or a service that died.
CREATE TABLE messages (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    parent_id uuid,
    run_id uuid,
    role text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content text NOT NULL,
    parts jsonb NOT NULL DEFAULT '[]',
    token_count integer NOT NULL,
    finish_reason text,
    provider text,
    model text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    context_tokens integer,
    stopped_by text,
    waits_for uuid
);
CREATE INDEX messages_by_session ON messages (session_id, id);
CREATE INDEX messages_by_parent ON messages (parent_id, id);
CREATE INDEX messages_that_begin ON messages (session_id, id) WHERE parent_id IS NULL;

-- What messages say, as it is searched: the words of the first 50,000 characters of each, and whose it is, written as a
-- word that no text has. Kept by triggers, so that a message is found however it was stored.
CREATE TABLE message_words (
    message_id uuid PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
    words tsvector NOT NULL
);
CREATE INDEX message_words_by_word ON message_words USING gin (words);

CREATE FUNCTION keep_words_of_new_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO message_words (message_id, words)
    SELECT m.id, array_to_tsvector(ARRAY['=' || s.owner_id]) || to_tsvector('simple', left(m.content, 50000))
    FROM added m JOIN sessions s ON s.id = m.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_added AFTER INSERT ON messages REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION keep_words_of_new_messages();

CREATE FUNCTION keep_words_of_changed_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE message_words w
    SET words = array_to_tsvector(ARRAY['=' || s.owner_id]) || to_tsvector('simple', left(NEW.content, 50000))
    FROM sessions s WHERE s.id = NEW.session_id AND w.message_id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_changed AFTER UPDATE OF content ON messages
    FOR EACH ROW WHEN (OLD.content IS DISTINCT FROM NEW.content) EXECUTE FUNCTION keep_words_of_changed_message();

-- Layer 1: the model's view of a message where that is not the message itself, in order, each item with its tokens.
-- No foreign key to `messages`: the items of a reply are written while it runs, its message when it has ended.
CREATE TABLE context_items (
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    message_id uuid NOT NULL,
    position integer NOT NULL,
    body jsonb NOT NULL,
    token_count integer NOT NULL,
    PRIMARY KEY (message_id, position)
);
CREATE INDEX context_items_by_session ON context_items (session_id);

-- What stands in the context for a message and everything before it, in every branch that runs through it.
CREATE TABLE context_summaries (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    message_id uuid NOT NULL UNIQUE,
    kind text NOT NULL CHECK (kind IN ('summary', 'marker')),
    text text NOT NULL,
    token_count integer NOT NULL,
    summarized_messages integer NOT NULL,
    tokens_before integer NOT NULL,
    model text,
    usage jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX context_summaries_by_session ON context_summaries (session_id);

-- How much more a model's server counts than we do, as far as it has told.
CREATE TABLE context_calibrations (
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    connection text NOT NULL,
    model text NOT NULL,
    factor real NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, connection, model)
);

-- What scripts remember from one turn of a session to the next.
CREATE TABLE module_variables (
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    module_id uuid NOT NULL REFERENCES modules ON DELETE CASCADE,
    name text NOT NULL,
    value jsonb NOT NULL,
    PRIMARY KEY (session_id, module_id, name)
);
CREATE INDEX module_variables_by_module ON module_variables (module_id);

-- The newest result of each module in each session. `run_seq` is the first position of the run in the session's
-- journal: results of earlier runs never replace those of later ones. `run_id` only tells where a result came from.
CREATE TABLE module_results (
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    module_id uuid NOT NULL REFERENCES modules ON DELETE CASCADE,
    run_id uuid NOT NULL,
    run_seq bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('spoke', 'failed')),
    text text NOT NULL DEFAULT '',
    outputs jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, module_id)
);
CREATE INDEX module_results_by_module ON module_results (module_id);

-- No index over `search`: it is only ever looked into within one session, whose memories one index finds.
CREATE TABLE memories (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    content text NOT NULL,
    first_message bigint,
    last_message bigint,
    metadata jsonb NOT NULL DEFAULT '{}',
    search tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX memories_by_session ON memories (session_id, id DESC);
CREATE INDEX memories_by_owner ON memories (owner_id);

-- How the prompt of a run came about.
CREATE TABLE run_traces (
    run_id uuid PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    prompt text NOT NULL,
    trace jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX run_traces_by_session ON run_traces (session_id);

-- What was uploaded into sessions. The bytes lie on disk under the row's id, and the row is the truth about them. A
-- file whose text is waited for is read by whoever's turn it is when `reading_until` has passed.
CREATE TABLE files (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    text_state text NOT NULL CHECK (text_state IN ('none', 'waiting', 'ready', 'failed')),
    text_note text,
    characters integer NOT NULL DEFAULT 0,
    token_count integer NOT NULL DEFAULT 0,
    width integer,
    height integer,
    view_type text,
    reading_attempts integer NOT NULL DEFAULT 0,
    reading_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX files_by_session ON files (session_id, id DESC);
CREATE INDEX files_by_owner ON files (owner_id);
CREATE INDEX files_to_read ON files (reading_until) WHERE text_state = 'waiting';

-- The text of files in pieces, each with the number of characters before it. No index over `search`: it is only ever
-- looked into within one session.
CREATE TABLE file_passages (
    file_id uuid NOT NULL REFERENCES files ON DELETE CASCADE,
    start integer NOT NULL,
    content text NOT NULL,
    search tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED,
    PRIMARY KEY (file_id, start)
);

-- One row: the folder in which the bytes of this database's files lie. Whoever sweeps that folder trusts the rows to be
-- all that there is, so no two databases may share one; a backup that is restored comes back to its own.
CREATE TABLE file_vault (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL
);

-- Who is alive; a replica that is alone sends no notifications.
CREATE TABLE replicas (
    id uuid PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- One row: positions in the journal mean something only within this epoch.
CREATE TABLE journal_epoch (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch uuid NOT NULL,
    cluster bigint NOT NULL
);

-- Accounts. Everything that shows who somebody is is kept as a SHA-256 of random bytes, so that a stolen copy of the
-- database opens nothing; passwords as Argon2id. The local owner has neither e-mail nor password.
ALTER TABLE users
    ADD COLUMN email text UNIQUE,
    ADD COLUMN password_hash text,
    ADD COLUMN is_admin boolean NOT NULL DEFAULT false,
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN timezone text;

-- One sign-in: a family of refresh tokens, each of which is used once. Access tokens name it.
CREATE TABLE sign_ins (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_because text
);
CREATE INDEX sign_ins_by_user ON sign_ins (user_id, id DESC);

CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY,
    sign_in_id uuid NOT NULL REFERENCES sign_ins ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz
);
CREATE INDEX refresh_tokens_by_sign_in ON refresh_tokens (sign_in_id);

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    last_four text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_by_user ON api_keys (user_id, id DESC);

-- An invitation lets one person register; with an e-mail only the one who has that address.
CREATE TABLE invitations (
    id uuid PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    email text,
    created_by uuid REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_by uuid REFERENCES users ON DELETE SET NULL,
    used_at timestamptz
);
CREATE INDEX invitations_by_creator ON invitations (created_by);
CREATE INDEX invitations_by_user ON invitations (used_by);

-- A ticket opens one socket, once, soon: browsers cannot send a header with a handshake, and addresses are logged.
CREATE TABLE socket_tickets (
    hash bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    session_id uuid REFERENCES sessions ON DELETE CASCADE,
    sign_in_id uuid REFERENCES sign_ins ON DELETE CASCADE,
    api_key_id uuid REFERENCES api_keys ON DELETE CASCADE,
    scopes text[] NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX socket_tickets_by_expiry ON socket_tickets (expires_at);
CREATE INDEX socket_tickets_by_user ON socket_tickets (user_id);
CREATE INDEX socket_tickets_by_session ON socket_tickets (session_id);
CREATE INDEX socket_tickets_by_sign_in ON socket_tickets (sign_in_id);
CREATE INDEX socket_tickets_by_key ON socket_tickets (api_key_id);

-- Who did what that an operator may have to answer for. It outlives what it tells of, users among them: no foreign keys.
CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    user_id uuid,
    credential_kind text,
    credential_id uuid,
    action text NOT NULL,
    subject_kind text NOT NULL,
    subject_id text,
    outcome text NOT NULL,
    address text,
    request_id text,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_user ON audit_log (user_id, id DESC);
CREATE INDEX audit_log_by_action ON audit_log (action, id DESC);

-- Nothing is changed or taken out, neither by a mistake of ours nor by a statement that somebody smuggles in: only what
-- is old goes, and only through the function below, which leaves the last day alone whatever it is told.
CREATE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('colloquy.sweeps_audit_log', true) = 'yes' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is only added to';
END
$$;
CREATE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_kept();
CREATE TRIGGER audit_log_is_not_emptied BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept();

CREATE FUNCTION sweep_audit_log(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    gone int;
BEGIN
    PERFORM set_config('colloquy.sweeps_audit_log', 'yes', true);
    DELETE FROM audit_log
    WHERE id IN (SELECT id FROM audit_log ORDER BY id LIMIT most)
      AND at < now() - make_interval(days => greatest(days, 1));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM set_config('colloquy.sweeps_audit_log', 'no', true);
    RETURN gone;
END
$$;

-- What was answered to a request that named an Idempotency-Key, for as long as somebody may ask again. A row is written
-- before the work is begun: without a status it is still being done by that replica, or that replica died over it.
CREATE TABLE idempotent_requests (
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    attempt_id uuid NOT NULL,
    replica_id uuid NOT NULL,
    status integer,
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX idempotent_requests_by_expiry ON idempotent_requests (expires_at);

-- Connections to model servers that users saved. A key is AES-256-GCM under a ring that is not in this database
-- (key_id names the key of the ring), bound to its row and owner. former_names lead here after a renaming.
CREATE TABLE provider_connections (
    id uuid PRIMARY KEY,
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    former_names text[] NOT NULL DEFAULT '{}',
    kind text NOT NULL CHECK (kind IN ('openai', 'azure', 'ollama')),
    base_url text,
    api_version text,
    deployment text,
    default_model text,
    num_ctx integer,
    api text NOT NULL DEFAULT 'chat_completions' CHECK (api IN ('chat_completions', 'responses')),
    is_active boolean NOT NULL DEFAULT true,
    sealed_key bytea,
    key_id text,
    last_four text,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name),
    CHECK ((sealed_key IS NULL) = (key_id IS NULL))
);
CREATE INDEX provider_connections_by_owner ON provider_connections (owner_id, id DESC);

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
