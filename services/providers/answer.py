"""Reading one answer from the wire to its last event, whatever the protocol."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.agent.types import ModelEvent, ToolCall
from services.errors import ProviderError
from services.providers.base import ProviderTimeouts
from services.providers.patience import Patience
from services.providers.reply import Reply

# Usage and the end of the HTTP body follow the finish at once, or never.
_TAIL_TIMEOUT = 3.0


class Reader(Protocol):
    """Understands one protocol: takes its JSON values one by one and fills a `Reply`."""

    reply: Reply

    def feed(self, value: object, /) -> Sequence[ModelEvent]:
        """The events in `value`."""
        ...

    def ended(self, calls: Sequence[ToolCall], /) -> None:
        """The answer is whole, with these calls in it."""
        ...


async def read_answer(
    source: AbstractAsyncContextManager[AsyncIterator[object]],
    reader: Reader,
    timeouts: ProviderTimeouts,
    provider: str,
) -> AsyncGenerator[ModelEvent, None]:
    """The events of one answer; every way in which it can fail is a `ProviderError`.

    The time to the first token runs through whatever a server sends to keep the line open before it.
    """
    reply = reader.reply
    begun = False
    try:
        with Patience(timeouts.first_token, "the beginning of an answer") as patience:
            async with source as values:
                async for value in values:
                    patience.rest()
                    events = reader.feed(value)
                    if not begun and (events or reply.calling):
                        begun = True
                        patience.change(timeouts.between_tokens, "more of its answer")
                    for event in events:
                        yield event
                    if reply.finish:
                        patience.change(_TAIL_TIMEOUT, "the end of its answer")
                    patience.wait(anew=begun)
    except ProviderError as error:
        # Once the model has finished, a fault of the line takes nothing away.
        if not reply.finish:
            error.details.setdefault("provider", provider)
            raise
    last = reply.end(provider)
    reader.ended([event for event in last if isinstance(event, ToolCall)])
    for event in last:
        yield event
