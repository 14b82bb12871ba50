-- A session's runs are listed newest first, a page at a time.
CREATE INDEX runs_by_session ON runs (session_id, id DESC);
