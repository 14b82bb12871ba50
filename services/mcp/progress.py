"""What a call tells of its progress, at a pace at which people can read it."""

import asyncio
from typing import Final

from services.mcp.types import OnProgress, ToolProgress
from services.providers.text import clean_text

_SECONDS: Final = 0.1
_LONGEST: Final = 500


class Reporter:
    """Hands on notices of progress: ten in a second at most, and none after the call's end."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._next = 0.0

    def __enter__(self) -> "Reporter | None":
        """Itself, as the callback that the protocol's client wants; None if nobody listens."""
        return self if self._on_progress else None

    def __exit__(self, *_: object) -> None:
        self._on_progress = None

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Take a notice."""
        now = asyncio.get_running_loop().time()
        if self._on_progress is None or now < self._next:
            return
        self._next = now + _SECONDS
        self._on_progress(ToolProgress(progress, total, clean_text((message or "")[:_LONGEST])))
