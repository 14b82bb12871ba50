"""The pool of tool servers, against real processes."""
