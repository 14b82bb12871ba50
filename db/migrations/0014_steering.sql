-- The run that a message was handed to when it was accepted: it takes the message before its next call of a model, and
-- then this run is over (`finish_reason` is `steered`); else this run answers the message right after.
ALTER TABLE runs ADD COLUMN handed_to uuid;
