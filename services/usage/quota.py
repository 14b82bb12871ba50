"""How many tokens a user may have in a day."""

from datetime import UTC, datetime, timedelta

from db.ids import UserId
from db.stores.usage import UsageStore
from services.agent.types import Usage
from services.errors import QuotaExceeded


class Quota:
    """The operator's limit for each user, from midnight to midnight (UTC). Without one, nothing is asked."""

    def __init__(self, store: UsageStore, *, tokens_per_day: int) -> None:
        """`tokens_per_day` of 0 is no limit."""
        self._store = store
        self.tokens_per_day = tokens_per_day

    async def check(self, owner_id: UserId, *, under_way: Usage | None = None) -> None:
        """Raises `QuotaExceeded` if nothing is left for another call of a model.

        What is `under_way` is not written down yet. Several replies at once may each go over by one call.
        """
        if not self.tokens_per_day:
            return
        now = datetime.now(UTC)
        used = await self._store.tokens_since(owner_id, _midnight(now))
        if under_way is not None:
            used += under_way.input_tokens + under_way.output_tokens
        if used >= self.tokens_per_day:
            raise QuotaExceeded(
                f"Your {self.tokens_per_day} tokens of today are used up; the next day begins at midnight UTC.",
                retry_after=max(1, round((tomorrow(now) - now).total_seconds())),
                limit=self.tokens_per_day,
                used=used,
            )

    async def used_today(self, owner_id: UserId) -> int:
        """The tokens of today that are written down."""
        return await self._store.tokens_since(owner_id, _midnight(datetime.now(UTC)))


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def tomorrow(now: datetime) -> datetime:
    """When the day ends."""
    return _midnight(now) + timedelta(days=1)
