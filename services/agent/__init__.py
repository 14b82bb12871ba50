"""The agent and the loop that runs it."""
