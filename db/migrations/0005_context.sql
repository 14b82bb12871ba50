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

-- `context_tokens` is what a message's items cost together, null where it has none. `stopped_by` is who stopped a reply
-- that was interrupted: a person, or a service that died.
ALTER TABLE messages ADD COLUMN context_tokens integer, ADD COLUMN stopped_by text;
