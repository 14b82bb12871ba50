"""Sockets: who is connected, frames in, events out."""
