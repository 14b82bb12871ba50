"""Calling tools: the calls of one turn side by side, each with its time, each with an answer for the model."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

from services.agent.agent import Agent, Answer
from services.agent.planning import CallPlan, Faulty, Ready
from services.agent.types import ToolCall, ToolResultMessage
from services.errors import ColloquyError
from services.providers.text import clean_text
from services.runs.events import RunEvent, ToolDone, ToolProgress, ToolStart

_log = logging.getLogger(__name__)

_PREVIEW_CHARACTERS = 2_000
_PROGRESS_SECONDS = 0.25
"""Between two words of how far a call has come: a tool may report thousands of times a second."""
_PROGRESS_CHARACTERS = 500

CallStatus = Literal["completed", "failed", "rejected"]


class Shows(Protocol):
    """Where what happens is shown."""

    def emit(self, event: RunEvent) -> None:
        """Show an event, without waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody did not want a call to be made; `why` is what the model is told."""

    why: str


class Book(Protocol):
    """Where a run writes down its calls, before and after each is made."""

    def told(self, call: ToolCall) -> str | None:
        """What the model is told of a call that ended before the run paused; None if it is still to be made."""
        ...

    async def agree(self, ready: Ready) -> Ready | Refused:
        """Wait for somebody's word where one is needed: the call as it may be made, or why not."""
        ...

    async def begin(self, ready: Ready) -> None:
        """Write down that the call is about to be made; when this returns, nobody will make it again."""
        ...

    async def end(self, call: ToolCall, status: CallStatus, answer: Answer, ms: int) -> str:
        """Write down what came of it, and return what the model is told."""
        ...


class NoBook:
    """For calls that nobody keeps and nobody has to agree to."""

    def told(self, call: ToolCall) -> str | None:
        """There was no pause."""

    async def agree(self, ready: Ready) -> Ready | Refused:
        """Make it."""
        return ready

    async def begin(self, ready: Ready) -> None:
        """There is nothing to write down."""

    async def end(self, call: ToolCall, status: CallStatus, answer: Answer, ms: int) -> str:
        """The model is told everything."""
        return answer.text


class Desk:
    """Makes the calls of one run."""

    def __init__(self, agent: Agent, shows: Shows, book: Book) -> None:
        self._shows = shows
        self._book = book
        self._places = asyncio.Semaphore(agent.max_calls_at_once)

    async def call_all(self, plan: CallPlan) -> list[ToolResultMessage]:
        """Make the calls side by side; the results stand in the order of the calls.

        A failing call is an answer, never the end of the run. Cancelling cancels every call that is under way.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call(step)) for step in plan.steps]
        return [task.result() for task in tasks]

    async def _call(self, step: Ready | Faulty) -> ToolResultMessage:
        text = self._book.told(step.call)
        if text is None:
            text = await self._carried_out(step)
        return ToolResultMessage(step.call.id, step.call.name, text)

    async def _carried_out(self, step: Ready | Faulty) -> str:
        match step:
            case Faulty(call=call, why=why, server=server):
                self._shows.emit(ToolStart(call.id, call.name, server, call.arguments))
                return await self._ended(call, "failed", Answer(why), 0)
            case Ready():
                return await self._agreed(step)
            case _:
                assert_never(step)

    async def _agreed(self, asked: Ready) -> str:
        match await self._book.agree(asked):
            case Refused(why):
                return await self._ended(asked.call, "rejected", Answer(why), 0)
            case Ready() as ready:
                async with self._places:
                    return await self._made(ready)

    async def _made(self, ready: Ready) -> str:
        call = ready.call
        self._shows.emit(ToolStart(call.id, call.name, ready.tool.server, call.arguments))
        await self._book.begin(ready)
        begun = time.monotonic()
        answer = await self._answer(ready)
        status: CallStatus = "failed" if answer.is_error else "completed"
        return await self._ended(call, status, answer, round((time.monotonic() - begun) * 1000))

    async def _ended(self, call: ToolCall, status: CallStatus, answer: Answer, ms: int) -> str:
        told = await self._book.end(call, status, answer, ms)
        preview = answer.text[:_PREVIEW_CHARACTERS]
        is_cut = answer.truncated or len(preview) < len(answer.text)
        self._shows.emit(ToolDone(call.id, status, preview, is_cut, ms))
        return told

    async def _answer(self, ready: Ready) -> Answer:
        """What the tool answers, or what is said in its place."""
        tool = ready.tool
        try:
            async with asyncio.timeout(tool.timeout):
                answer = await tool.call(ready.arguments, _Progress(ready.call, self._shows))
        except TimeoutError:
            return Answer(f"The tool did not answer within {tool.timeout:g} seconds.", is_error=True)
        except ColloquyError as error:
            return Answer(f"The tool failed: {error.message}", is_error=True)
        except Exception:  # noqa: BLE001 - the border of somebody else's code: its fault becomes an answer
            _log.exception("the tool %s failed", tool.spec.name)
            return Answer("The tool failed.", is_error=True)
        return Answer(clean_text(answer.text), answer.is_error, answer.truncated)


class _Progress:
    """Shows how far a call has come, a few times a second."""

    def __init__(self, call: ToolCall, shows: Shows) -> None:
        self._call = call
        self._shows = shows
        self._shown_at = -math.inf

    def __call__(self, progress: float, total: float | None = None, message: str = "", /) -> None:
        now = time.monotonic()
        if now - self._shown_at < _PROGRESS_SECONDS or not math.isfinite(progress):
            return
        self._shown_at = now
        known = total if total is not None and math.isfinite(total) else None
        short = clean_text(message)[:_PROGRESS_CHARACTERS]
        self._shows.emit(ToolProgress(self._call.id, progress, known, short))
