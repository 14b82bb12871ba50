"""What happened: counts and times."""

import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager


class Tally:
    """Counts what was done, and remembers how long what took."""

    def __init__(self) -> None:
        self.deeds = Counter[str]()
        self.disturbed = Counter[str]()
        self.faults = Counter[str]()
        self.accepted: list[tuple[str, str]] = []
        """Session and client_message_id of each message that was seen to be taken."""
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, name: str) -> Generator[None, None, None]:
        """Remember how long what is within took, if it came to its end."""
        began = time.monotonic()
        yield
        self.took(name, time.monotonic() - began)

    def took(self, name: str, seconds: float) -> None:
        """Remember how long something took."""
        self.times.setdefault(name, []).append(seconds)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"deeds      {_counted(self.deeds)}",
            f"disturbed  {_counted(self.disturbed)}",
            f"faults     {_counted(self.faults)}",
            *(f"{name:<28}{_percentiles(seconds)}" for name, seconds in sorted(self.times.items())),
        ]


def _counted(counter: Counter[str]) -> str:
    each = ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
    return f"{counter.total()} ({each})" if counter else "none"


def _percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    at = {part: ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 95, 99, 100)}
    named = (f"{'max' if part == 100 else f'p{part}'} {1000 * time:6.0f} ms" for part, time in at.items())
    return f"{'  '.join(named)}  of {len(ordered)}"
