-- One row: the folder in which the bytes of this database's files lie. Whoever sweeps that folder trusts the rows to be
-- all that there is, so no two databases may share one; a backup that is restored comes back to its own.
CREATE TABLE file_vault (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL
);
