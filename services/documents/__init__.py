"""Documents that anybody may have sent: what they are, and what is written in them, read in a process of its own."""
