"""What surrounds the work at hand: which request it belongs to, from where that came, on which credential."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from services.accounts.caller import Credential


@dataclass(slots=True)
class Circumstances:
    """Of one request or socket. `credential` is set once it is known; it is one object for all that it causes."""

    request_id: str | None = None
    address: str | None = None
    credential: Credential | None = None


_at_hand: ContextVar[Circumstances | None] = ContextVar("circumstances", default=None)


def circumstances() -> Circumstances:
    """Those of the work that asks; empty ones for work that nobody asked for."""
    return _at_hand.get() or Circumstances()


@contextmanager
def under(given: Circumstances) -> Generator[None, None, None]:
    """Do what is inside, and all tasks that it begins, under these circumstances."""
    token = _at_hand.set(given)
    try:
        yield
    finally:
        _at_hand.reset(token)
