-- Accounts come later; until then one local owner, but every row already belongs to somebody.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    display_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
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
    is_active boolean NOT NULL DEFAULT true,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name),
    UNIQUE (owner_id, slug)
);

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
    updated_at timestamptz NOT NULL DEFAULT now()
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
    UNIQUE (session_id, client_message_id)
);
CREATE UNIQUE INDEX runs_one_running ON runs (session_id) WHERE state = 'running';
CREATE INDEX runs_unfinished ON runs (session_id, first_seq) WHERE state <> 'finished';
CREATE INDEX runs_finished ON runs (finished_at) WHERE state = 'finished';

-- `parent_id` makes the tree; it has no foreign key because a reply is put between two messages that are there already.
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
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messages_by_session ON messages (session_id, id);
CREATE INDEX messages_by_parent ON messages (parent_id);

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
