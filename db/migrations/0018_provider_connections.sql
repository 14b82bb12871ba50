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
