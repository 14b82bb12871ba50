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
