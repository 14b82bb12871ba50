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

-- Through which sign-in or key a run was asked for: it ends with it.
ALTER TABLE runs ADD COLUMN credential_id uuid;
