"""What a user has used, summed up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db.ids import UserId
from db.stores.usage import UsageGroup, UsageStore, UsageSum
from services.errors import InvalidRequest
from services.usage.quota import Quota, tomorrow

_LONGEST = timedelta(days=366)
_USUAL = timedelta(days=30)
_MOST_GROUPS = 1_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a day; without a limit `tokens_per_day` is None."""

    tokens_per_day: int | None
    used_today: int
    begins_anew_at: datetime


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The sums of a stretch of time. With more groups than a report has, `is_whole` is false."""

    since: datetime
    until: datetime
    total: UsageSum
    groups: Sequence[UsageSum]
    is_whole: bool
    allowance: Allowance


class UsageReports:
    """Sums up what is written down."""

    def __init__(self, store: UsageStore, quota: Quota) -> None:
        self._store = store
        self._quota = quota

    async def report(
        self, owner_id: UserId, *, since: datetime | None, until: datetime | None, by: UsageGroup
    ) -> UsageReport:
        """The sums from `since` to before `until`: by default of the last thirty days. Raises `InvalidRequest`."""
        now = datetime.now(UTC)
        until = until or now
        since = since or until - _USUAL
        if not timedelta() <= until - since <= _LONGEST:
            raise InvalidRequest(f"A report has at most {_LONGEST.days} days, and begins before it ends.", field="from")
        total = await self._store.sums(owner_id, since, until, by=None, limit=1)
        groups = await self._store.sums(owner_id, since, until, by=by, limit=_MOST_GROUPS + 1)
        limit, used = self._quota.tokens_per_day, await self._quota.used_today(owner_id)
        allowance = Allowance(limit or None, used, tomorrow(now))
        is_whole = len(groups) <= _MOST_GROUPS
        return UsageReport(since, until, total[0], groups[:_MOST_GROUPS], is_whole, allowance)
