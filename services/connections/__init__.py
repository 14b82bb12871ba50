"""Connections to model servers that users save: their addresses, their keys and their clients."""
