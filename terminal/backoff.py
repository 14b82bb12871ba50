"""How long to wait before trying again."""

import random
import time


class Backoff:
    """Full jitter: each wait is a random part of a bound that doubles, so that clients do not all return at once.

    `first` and `most` are the smallest and the largest bound, `patience` how long to go on trying; in seconds.
    """

    def __init__(self, *, first: float = 0.25, most: float = 5.0, patience: float = 300.0) -> None:
        self._first = first
        self._most = most
        self._patience = patience
        self._failures = 0
        self._since = 0.0

    def next(self, *, at_least: float = 0.0) -> float | None:
        """Seconds to wait after one more failure; None when patience is at its end."""
        now = time.monotonic()
        if not self._failures:
            self._since = now
        if now - self._since > self._patience:
            return None
        bound = min(self._most, self._first * 2 ** min(self._failures, 30))
        self._failures += 1
        return at_least + random.uniform(0, bound)

    def reset(self) -> None:
        """It worked."""
        self._failures = 0
