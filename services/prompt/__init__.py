"""The system prompt as a small program: templates, the modules that they name, and when those speak."""
