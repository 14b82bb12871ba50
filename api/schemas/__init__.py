"""What crosses the wire over REST, by noun."""
