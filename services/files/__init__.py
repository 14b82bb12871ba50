"""Files of sessions: how they come in, where they lie, what is read in them."""
