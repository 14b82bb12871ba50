-- What messages say, as it is searched: the words of the first 50,000 characters of each, and whose it is, written as a
-- word that no text has. Kept by triggers, so that a message is found however it was stored.
CREATE TABLE message_words (
    message_id uuid PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
    words tsvector NOT NULL
);

CREATE FUNCTION keep_words_of_new_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO message_words (message_id, words)
    SELECT m.id, array_to_tsvector(ARRAY['=' || s.owner_id]) || to_tsvector('simple', left(m.content, 50000))
    FROM added m JOIN sessions s ON s.id = m.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_added AFTER INSERT ON messages REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION keep_words_of_new_messages();

CREATE FUNCTION keep_words_of_changed_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE message_words w
    SET words = array_to_tsvector(ARRAY['=' || s.owner_id]) || to_tsvector('simple', left(NEW.content, 50000))
    FROM sessions s WHERE s.id = NEW.session_id AND w.message_id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_changed AFTER UPDATE OF content ON messages
    FOR EACH ROW WHEN (OLD.content IS DISTINCT FROM NEW.content) EXECUTE FUNCTION keep_words_of_changed_message();

INSERT INTO message_words (message_id, words)
SELECT m.id, array_to_tsvector(ARRAY['=' || s.owner_id]) || to_tsvector('simple', left(m.content, 50000))
FROM messages m JOIN sessions s ON s.id = m.session_id;
CREATE INDEX message_words_by_word ON message_words USING gin (words);
