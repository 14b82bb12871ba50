"""The front door: commands, settings and the HTTP application."""
