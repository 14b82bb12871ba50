"""What a new owner finds."""
