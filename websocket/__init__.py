"""Sockets: who is connected, frames in, events out. Knows no SQL and no provider."""
