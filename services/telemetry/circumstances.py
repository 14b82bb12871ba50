"""What surrounds the work at hand: which request it belongs to, from where that came, whose and what it is about."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from db.ids import RunId, SessionId, UserId
from db.records import RunRecord
from services.accounts.caller import Credential


@dataclass(slots=True)
class Circumstances:
    """Of one request, socket or run. What is learned on the way is set: it is one object for all that it causes."""

    request_id: str | None = None
    address: str | None = None
    credential: Credential | None = None
    user_id: UserId | None = None
    session_id: SessionId | None = None
    run_id: RunId | None = None


def of_run(run: RunRecord) -> Circumstances:
    """Those of a run and the work after its reply; of the request at hand if that is what has asked for it."""
    around = circumstances()
    # What follows a run in its session is begun by it, but was asked for by others.
    asked = around if around.run_id is None else Circumstances()
    return replace(asked, user_id=run.owner_id, session_id=run.session_id, run_id=run.id)


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
