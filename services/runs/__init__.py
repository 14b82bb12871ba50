"""Runs: what can happen in them, the journal that keeps it, and the engine that performs them."""
