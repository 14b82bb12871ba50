"""Colloquy against software that others wrote. Not part of `make test`: see `conftest.py`."""
