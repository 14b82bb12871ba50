"""What was used, over REST."""

from datetime import datetime
from typing import Self

from pydantic import ConfigDict, Field

from api.schemas.model import Answer
from db.stores.usage import UsageSum
from services.usage.reports import UsageReport


class UsageTokens(Answer):
    """Tokens, as the models' servers have counted them."""

    model_config = ConfigDict(from_attributes=True)

    runs: int = Field(description="Replies, whole or interrupted.")
    input_tokens: int
    output_tokens: int = Field(description="`thinking_tokens` among them.")
    thinking_tokens: int
    estimated_tokens: int = Field(description="Beside these: our own count of what servers told nothing of.")


class UsageItem(UsageTokens):
    """What belongs together."""

    key: str | None = Field(
        description="The day (UTC), or the name or id; null where there is none. What it names may be gone."
    )


class UsageAllowance(Answer):
    """What may be used in a day (UTC)."""

    model_config = ConfigDict(from_attributes=True)

    tokens_per_day: int | None = Field(description="Null: as many as you like.")
    used_today: int = Field(description="Input, output and estimated tokens; replies that are running come on top.")
    begins_anew_at: datetime


class UsageOverview(Answer):
    """What was used in a stretch of time. What is deleted meanwhile has been used all the same."""

    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    total: UsageTokens
    items: list[UsageItem] = Field(description="Days in order; otherwise what was used most first.")
    is_whole: bool = Field(description="There are no more groups than these.")
    allowance: UsageAllowance

    @classmethod
    def of(cls, report: UsageReport) -> Self:
        """What a client sees of the report."""
        return cls(
            **{"from": report.since, "to": report.until},
            total=_counts(report.total),
            items=[UsageItem.model_validate(group, from_attributes=True) for group in report.groups],
            is_whole=report.is_whole,
            allowance=UsageAllowance.model_validate(report.allowance),
        )


def _counts(sum: UsageSum) -> UsageTokens:
    return UsageTokens.model_validate(sum)
