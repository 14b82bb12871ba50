"""Which version this is."""

from importlib.metadata import PackageNotFoundError, version


def service_version() -> str:
    """The version of this checkout."""
    try:
        return version("colloquy")
    except PackageNotFoundError:
        return "0.1.0"
