-- The work that is left when a reply is closed, one row for each run that has any. `position` is the run's first in
-- the session's journal: the order in which the work is done. `last_seq` is the newest event that it has shown. No
-- foreign keys but the one: the row is made and deleted with its run.
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
    finished_at timestamptz
);
CREATE INDEX post_responses_unfinished ON post_responses (session_id, position) WHERE state <> 'done';
