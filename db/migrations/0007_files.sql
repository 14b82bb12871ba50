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
