"""Who somebody is, what shows it, and what it allows."""
