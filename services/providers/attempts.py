"""When a failed call of a model is made again, and when not."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from services.agent.types import ModelEvent
from services.errors import ProviderError, ProviderGarbled, ProviderRateLimited, ProviderTimeout

Attempt = Callable[[], AsyncGenerator[ModelEvent, None]]
Mend = Callable[[ProviderError], bool]
"""Removes the cause of an error if it can, and says whether it did."""


def cannot_mend(_: ProviderError) -> bool:
    """For protocols in which nothing can be left out."""
    return False


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is repeated, and how long that may take. Seconds."""

    most: int = 2
    first_delay: float = 0.3
    budget: float = 10.0
    """All waiting together; a server that asks for more is not waited for."""

    async def stream(self, attempt: Attempt, mend: Mend) -> AsyncGenerator[ModelEvent, None]:
        """The events of `attempt`, which is made again only while nothing of it has been shown."""
        waited = 0.0
        for number in range(self.most + 1):
            shown = False
            try:
                async with aclosing(attempt()) as events:
                    async for event in events:
                        shown = True
                        yield event
            except ProviderError as error:
                if shown or number == self.most:
                    raise
                delay = 0.0 if mend(error) else self._delay(error, number)
                if delay and (not _may_help(error) or waited + delay > self.budget):
                    raise
            else:
                return
            waited += delay
            await asyncio.sleep(delay)

    def _delay(self, error: ProviderError, number: int) -> float:
        asked = error.details.get("retry_after")
        if isinstance(asked, float):
            return asked
        slower = 4 if isinstance(error, ProviderRateLimited) else 1
        # Full jitter from a half upwards: many sessions that fail together must not come back together.
        return self.first_delay * slower * 2**number * random.uniform(0.5, 1.0)


def _may_help(error: ProviderError) -> bool:
    """A server that was waited for in vain, or that speaks another protocol, will not do better at once."""
    return error.retryable and not isinstance(error, ProviderTimeout | ProviderGarbled)
