-- What the service does for itself after a reply, by name: when all is told that readers wait for (`is_told`).
ALTER TABLE post_responses
    ADD COLUMN jobs text[] NOT NULL DEFAULT '{}',
    ADD COLUMN is_told boolean NOT NULL DEFAULT false,
    ADD COLUMN usage jsonb NOT NULL DEFAULT '{}';

-- Whether somebody has had a say in the title, be it that there is none.
ALTER TABLE sessions ADD COLUMN title_is_given boolean NOT NULL DEFAULT false;
UPDATE sessions SET title_is_given = true WHERE title IS NOT NULL;
