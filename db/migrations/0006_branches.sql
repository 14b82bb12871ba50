-- The run whose reply a message waits for: until then it stands behind the message that the reply is to, and then it
-- moves behind the reply. Whatever else follows the same message is another branch, and stays where it is.
ALTER TABLE messages ADD COLUMN waits_for uuid;
UPDATE messages m SET waits_for = first.id
FROM runs waiting, runs first
WHERE waiting.state = 'queued' AND m.session_id = waiting.session_id AND m.run_id = waiting.id
  AND first.session_id = m.session_id AND first.state <> 'finished' AND first.user_message_id = m.parent_id;

-- What follows the same message, in order; what begins a session follows none.
DROP INDEX messages_by_parent;
CREATE INDEX messages_by_parent ON messages (parent_id, id);
CREATE INDEX messages_that_begin ON messages (session_id, id) WHERE parent_id IS NULL;
