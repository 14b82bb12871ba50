-- When an owner was given the first persona, so that it never comes back once it was deleted.
ALTER TABLE users ADD COLUMN welcomed_at timestamptz;
