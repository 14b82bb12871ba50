"""Calls are made again when that can help, and only while nothing has been shown."""

from collections.abc import AsyncGenerator

import pytest

from services.agent.types import ModelEvent, TextDelta
from services.errors import ProviderAuthentication, ProviderError, ProviderGarbled, ProviderRateLimited, ProviderTimeout
from services.providers.attempts import Retries, cannot_mend

AT_ONCE = Retries(first_delay=0.001)


class Calls:
    """Fails with each error in turn, then answers."""

    def __init__(self, *errors: ProviderError, shows_first: bool = False) -> None:
        self.errors = list(errors)
        self.made = 0
        self.shows_first = shows_first

    async def attempt(self) -> AsyncGenerator[ModelEvent, None]:
        self.made += 1
        if self.shows_first:
            yield TextDelta("shown")
        if self.errors:
            raise self.errors.pop(0)
        yield TextDelta("done")


async def outcome(calls: Calls, retries: Retries = AT_ONCE) -> list[ModelEvent]:
    return [event async for event in retries.stream(calls.attempt, cannot_mend)]


async def test_two_failures_are_made_up_for() -> None:
    calls = Calls(ProviderError(), ProviderError())
    assert await outcome(calls) == [TextDelta("done")]
    assert calls.made == 3


@pytest.mark.parametrize("error", [ProviderTimeout(), ProviderGarbled(), ProviderAuthentication()])
async def test_what_will_not_get_better_is_not_tried_again(error: ProviderError) -> None:
    calls = Calls(error)
    with pytest.raises(type(error)):
        await outcome(calls)
    assert calls.made == 1


async def test_after_the_first_event_nothing_is_tried_again() -> None:
    calls = Calls(ProviderError(), shows_first=True)
    with pytest.raises(ProviderError):
        await outcome(calls)
    assert calls.made == 1


async def test_the_waits_together_stay_within_the_budget() -> None:
    calls = Calls(ProviderRateLimited(retry_after=0.01), ProviderRateLimited(retry_after=0.01))
    with pytest.raises(ProviderRateLimited):
        await outcome(calls, Retries(budget=0.015))
    assert calls.made == 2


async def test_a_mended_call_is_made_at_once_even_if_its_error_was_final() -> None:
    calls = Calls(ProviderAuthentication())
    mended: list[ProviderError] = []

    def mend(error: ProviderError) -> bool:
        mended.append(error)
        return True

    events = [event async for event in AT_ONCE.stream(calls.attempt, mend)]
    assert events == [TextDelta("done")]
    assert len(mended) == 1
