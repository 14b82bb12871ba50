"""What is open here, and by whose right: sockets and streams of events."""

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from uuid import UUID

from services.accounts.caller import Caller


class RightsInUse:
    """The rights by which something is open in this process."""

    def __init__(self) -> None:
        self._uses: dict[_Use, None] = {}

    @contextmanager
    def used(self, caller: Caller, end: Callable[[], None]) -> Generator[None, None, None]:
        """Note that something is open by the caller's right; `end()` is called at most once, if that is taken away.

        Without accounts there is nothing that could be taken away.
        """
        if caller.credential is None:
            yield
            return
        use = _Use(caller, end)
        self._uses[use] = None
        try:
            yield
        finally:
            self._uses.pop(use, None)

    @property
    def credential_ids(self) -> set[UUID]:
        """What was shown for all that is open."""
        return {use.credential_id for use in self._uses}

    def end(self, credential_ids: Collection[UUID]) -> int:
        """End what is open by those credentials; returns how much that was."""
        ended = [use for use in self._uses if use.credential_id in credential_ids]
        for use in ended:
            del self._uses[use]
            use.end()
        return len(ended)


class _Use:
    """One thing that is open."""

    def __init__(self, caller: Caller, end: Callable[[], None]) -> None:
        assert caller.credential is not None, "only what was shown can be taken away"
        self.credential_id = caller.credential.id
        self.end = end
