"""A sink for answers that nobody watches: it keeps their text."""

from services.errors import ReplyTooLong
from services.runs.events import RefusalDelta, RunEvent, TextDelta


class Collected:
    """Keeps what a model says, up to `most_bytes` of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._text: list[str] = []
        self._refusal: list[str] = []

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self._text)

    @property
    def refusal(self) -> str:
        """Why there is none, in the model's words."""
        return "".join(self._refusal)

    def emit(self, event: RunEvent) -> None:
        """Keep what was said; raises `ReplyTooLong`."""
        match event:
            case TextDelta(text):
                self._keep(self._text, text)
            case RefusalDelta(text):
                self._keep(self._refusal, text)
            case _:
                pass

    @property
    def is_full(self) -> bool:
        """Nobody reads it meanwhile, so it has never to be waited for."""
        return False

    async def room(self) -> None:
        """Return at once."""
        return

    def _keep(self, pieces: list[str], text: str) -> None:
        self._bytes += len(text.encode())
        if self._bytes > self._most_bytes:
            raise ReplyTooLong(limit=self._most_bytes)
        pieces.append(text)
