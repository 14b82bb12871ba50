"""How a script goes on after each of its stops."""

from collections.abc import Awaitable, Callable

from pydantic_monty import (
    AsyncFunctionSnapshot,
    AsyncFutureSnapshot,
    AsyncNameLookupSnapshot,
    AsyncSnapshot,
    ExternalResult,
    MontyComplete,
)

Answer = Callable[[AsyncFunctionSnapshot], Awaitable[ExternalResult]]
"""What a call of `ctx` gives."""


class Ctx:
    """What a script's `ctx` is on this side: nothing. Every use of it arrives by name."""

    __slots__ = ()


async def go_on(stop: AsyncSnapshot, answer: Answer) -> AsyncSnapshot:
    """Answer what the script stopped for, and let it go on to its next stop."""
    match stop:
        case AsyncFunctionSnapshot(is_os_function=True):
            return await stop.resume_not_handled()
        case AsyncFunctionSnapshot(object_id=None):
            message = f"name {str(stop.function_name)[:64]!r} is not defined"
            return await stop.resume({"exc_type": "NameError", "message": message})
        case AsyncFunctionSnapshot():
            return await stop.resume(await answer(stop))
        case AsyncNameLookupSnapshot():
            return await stop.resume()
        case AsyncFutureSnapshot() | MontyComplete():
            raise AssertionError("no call is answered by a promise, so a script never waits for one")
