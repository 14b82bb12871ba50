"""A time limit for reading a stream that yields in between."""

import asyncio
from time import monotonic
from types import TracebackType

from services.errors import ProviderTimeout


class Patience:
    """Turns a wait for the server that lasts too long into `ProviderTimeout`.

    The clock runs only between `wait()` and `rest()`, so the cancellation behind it can hit nothing but the read
    itself: a timeout around a `yield` would hit whoever consumes the stream. One timer serves all waits and is
    only moved when it fires, so a wait costs two clock readings.
    """

    __slots__ = ("_began", "_cancelled", "_cancelling", "_limit", "_loop", "_since", "_task", "_timer", "_what")

    def __init__(self, limit: float, what: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._what = what
        self._since: float | None = None
        self._began = monotonic()
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self._cancelling = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "Patience":
        self._timer = self._loop.call_later(self._limit, self._look)
        self.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._since = None
        if self._timer:
            self._timer.cancel()
        if not self._cancelled or self._task is None:
            return
        self._cancelled = False
        # As in asyncio.timeout: a cancellation by somebody else at the same moment goes first.
        if self._task.uncancel() <= self._cancelling and error is not None and _comes_from_cancellation(error):
            raise ProviderTimeout(self._message(), seconds=self._limit) from error

    def wait(self, *, anew: bool = True) -> None:
        """From here the server is waited for; unless `anew`, the wait that `rest()` broke off goes on."""
        self._task = asyncio.current_task()
        self._since = monotonic() if anew else self._began
        self._began = self._since

    def rest(self) -> None:
        """Something came; whatever happens now is not the server's time."""
        self._since = None

    def change(self, limit: float, what: str) -> None:
        """The next waits may last `limit` seconds. To be called at rest."""
        self._limit = limit
        self._what = what
        if self._timer:
            self._timer.cancel()
            self._timer = self._loop.call_later(limit, self._look)

    def _look(self) -> None:
        left = self._limit if self._since is None else self._since + self._limit - monotonic()
        if left > 0 or self._task is None:
            self._timer = self._loop.call_later(max(left, 0.001), self._look)
            return
        self._cancelled = True
        self._cancelling = self._task.cancelling()
        self._task.cancel()

    def _message(self) -> str:
        return f"The model server did not send {self._what} within {self._limit:g} seconds."


def _comes_from_cancellation(error: BaseException) -> bool:
    # A library that is cancelled while it reads may report its own closed connection instead.
    return isinstance(error, asyncio.CancelledError) or isinstance(error.__context__, asyncio.CancelledError)
