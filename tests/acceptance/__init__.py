"""One file for each promise: real processes, real sockets, real PostgreSQL, and faults at the worst moment.

Figures that a test measures are in its output: `make test ARGS="-rP tests/acceptance"` shows them.
"""
