"""Backups: one file with everything, made beside a running service, checked before anything is restored from it."""
