-- What filled the model's window in a run, in tokens.
ALTER TABLE runs ADD COLUMN context jsonb;

-- Grows whenever what was said is changed afterwards: a summary of what is no longer true must not be stored.
ALTER TABLE sessions ADD COLUMN context_version bigint NOT NULL DEFAULT 0;

-- How much more a model's server counts than we do, as far as it has told.
CREATE TABLE context_calibrations (
    owner_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    connection text NOT NULL,
    model text NOT NULL,
    factor real NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, connection, model)
);
