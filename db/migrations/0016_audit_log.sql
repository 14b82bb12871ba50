-- Who did what that an operator may have to answer for. It outlives what it tells of, users among them: no foreign keys.
CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    user_id uuid,
    credential_kind text,
    credential_id uuid,
    action text NOT NULL,
    subject_kind text NOT NULL,
    subject_id text,
    outcome text NOT NULL,
    address text,
    request_id text,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_user ON audit_log (user_id, id DESC);
CREATE INDEX audit_log_by_action ON audit_log (action, id DESC);

-- Nothing is changed or taken out, neither by a mistake of ours nor by a statement that somebody smuggles in: only what
-- is old goes, and only through the function below, which leaves the last day alone whatever it is told.
CREATE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('colloquy.sweeps_audit_log', true) = 'yes' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is only added to';
END
$$;
CREATE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_kept();
CREATE TRIGGER audit_log_is_not_emptied BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept();

CREATE FUNCTION sweep_audit_log(days int, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    gone int;
BEGIN
    PERFORM set_config('colloquy.sweeps_audit_log', 'yes', true);
    DELETE FROM audit_log
    WHERE id IN (SELECT id FROM audit_log ORDER BY id LIMIT most)
      AND at < now() - make_interval(days => greatest(days, 1));
    GET DIAGNOSTICS gone = ROW_COUNT;
    PERFORM set_config('colloquy.sweeps_audit_log', 'no', true);
    RETURN gone;
END
$$;
