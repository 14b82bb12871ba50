-- The session's word on tools, which goes before its persona's.
ALTER TABLE sessions ADD COLUMN tools jsonb NOT NULL DEFAULT '{}';

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
