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

ALTER TABLE personas
    ADD COLUMN image text,
    ADD COLUMN schedule jsonb,
    ADD COLUMN tools jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN refers_to text[] NOT NULL DEFAULT '{}';
CREATE INDEX personas_by_owner ON personas (owner_id, id DESC);
CREATE INDEX personas_by_reference ON personas USING gin (refers_to);

-- Near enough for templates written before there were modules; exact from the next time that one is saved.
UPDATE personas SET refers_to = ARRAY(
    SELECT DISTINCT found[1] FROM regexp_matches(template, '(?:@\{?|\$\{)([a-z][a-z0-9_]{0,49})', 'g') AS found
);

-- Modules attached to a persona beside those that its template names.
CREATE TABLE persona_modules (
    persona_id uuid NOT NULL REFERENCES personas ON DELETE CASCADE,
    module_id uuid NOT NULL REFERENCES modules ON DELETE CASCADE,
    position integer NOT NULL,
    PRIMARY KEY (persona_id, module_id)
);
CREATE INDEX persona_modules_by_module ON persona_modules (module_id);

ALTER TABLE users ADD COLUMN default_persona_id uuid REFERENCES personas ON DELETE SET NULL;
CREATE INDEX users_by_default_persona ON users (default_persona_id) WHERE default_persona_id IS NOT NULL;

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
