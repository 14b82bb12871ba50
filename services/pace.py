"""How fast one user may ask: so many requests a minute, all at once if nobody was asking before."""

import time
from dataclasses import dataclass

from db.ids import UserId
from services.errors import TooManyRequests

_MOST_USERS = 10_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left, and in how many seconds all of it is there again."""

    per_minute: int
    left: int
    whole_after: int


class Pace:
    """Counts the requests of users in this process."""

    def __init__(self, per_minute: int) -> None:
        """`per_minute` of 0 is no limit."""
        self._per_minute = per_minute
        self._spent: dict[UserId, tuple[float, float]] = {}
        """How much was spent, and when that was so: it comes back by itself."""

    def spend(self, user_id: UserId) -> Allowance | None:
        """Count one request; raises `TooManyRequests` when none is left, None without a limit."""
        if not self._per_minute:
            return None
        a_second = self._per_minute / 60
        now = time.monotonic()
        spent, at = self._spent.get(user_id, (0.0, now))
        spent = max(0.0, spent - (now - at) * a_second) + 1
        if spent > self._per_minute:
            wait = (spent - self._per_minute) / a_second
            raise TooManyRequests(
                f"At most {self._per_minute} requests in a minute.", retry_after=max(1, wait), limit=self._per_minute
            )
        self._spent[user_id] = (spent, now)
        if len(self._spent) > _MOST_USERS:
            self._forget(now, a_second)
        return Allowance(self._per_minute, int(self._per_minute - spent), round(spent / a_second + 0.5))

    def _forget(self, now: float, a_second: float) -> None:
        """Of those who have all of it back, nothing need be known."""
        self._spent = {user: (spent, at) for user, (spent, at) in self._spent.items() if spent > (now - at) * a_second}
