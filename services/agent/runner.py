"""The only loop: ask the model, call the tools that it asks for, ask again, until it is done.

Deciding is pure (`decide`), doing is not. `Runner.run` is a coroutine with a sink rather than an async generator,
because tools run in a TaskGroup and yielding inside one is unsafe (PEP 789).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, assert_never, cast

import orjson

from services.agent import types as said
from services.agent.agent import Agent, Tool
from services.agent.types import ChatMessage, ModelMessage, ModelRequest, ToolCall, ToolCallMessage, ToolResultMessage
from services.providers.base import Provider
from services.runs.events import RefusalDelta, RunEvent, TextDelta, ThinkingDelta, ToolDone, ToolStart

_PREVIEW_CHARACTERS = 2_000

RunnerFinish = Literal["stop", "length", "refusal", "max_turns"]


class Sink(Protocol):
    """Where the loop shows what happens."""

    def emit(self, event: RunEvent) -> None:
        """Show an event, without waiting."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the loop should wait in `room`."""
        ...

    async def room(self) -> None:
        """Wait until more can be shown."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """What one call of a model is given, and how many tokens are left for its answer; None leaves that to the model."""

    messages: Sequence[ModelMessage]
    reply_tokens: int | None = None


class Conversation(Protocol):
    """What is said in a run: what the model is given of it, call after call, and what is added in between."""

    async def window(self) -> Given:
        """What the next call is given, the newest message last; never more than the model takes."""
        ...

    async def add(self, said: Sequence[ModelMessage]) -> None:
        """Take what was said since the last call; when this returns, it is kept."""
        ...


class Spoken:
    """A conversation that nobody keeps and that fits into any model."""

    def __init__(self, *messages: ModelMessage) -> None:
        self._messages = list(messages)

    async def window(self) -> Given:
        """All of it."""
        return Given(tuple(self._messages))

    async def add(self, said: Sequence[ModelMessage]) -> None:
        """Remember it until the run is over."""
        self._messages.extend(said)


@dataclass(slots=True)
class ModelTurn:
    """One answer of the model, whole."""

    text: list[str] = field(default_factory=list[str])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    refused: bool = False
    usage: said.Usage | None = None
    finish: said.FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class CallTools:
    """The model wants these tools called, and to go on after that."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The model has answered."""

    reason: RunnerFinish


@dataclass(frozen=True, slots=True)
class RunnerResult:
    """How the loop ended; `usage` is summed over its calls, None where the provider told nothing."""

    reason: RunnerFinish
    usage: said.Usage | None


def decide(turn: ModelTurn) -> CallTools | Done:
    """What comes after this answer of the model."""
    if turn.calls:
        return CallTools(tuple(turn.calls))
    if turn.refused or turn.finish == "refusal":
        return Done("refusal")
    return Done("length" if turn.finish == "length" else "stop")


class Runner:
    """Runs agents against one provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def run(self, agent: Agent, conversation: Conversation, sink: Sink) -> RunnerResult:
        """Answer the newest message of the conversation, showing everything in `sink` as it comes.

        Raises the `ProviderError`s of `services.errors`. Cancelling closes the provider's stream and the tools.
        """
        usage: said.Usage | None = None
        for _ in range(agent.max_turns):
            turn = await self._ask(agent, await conversation.window(), sink)
            usage = turn.usage if usage is None else usage + (turn.usage or said.Usage())
            match decide(turn):
                case Done(reason):
                    return RunnerResult(reason, usage)
                case CallTools(calls):
                    await conversation.add([ToolCallMessage("".join(turn.text), calls)])
                    await conversation.add(await _call_all(agent, calls, sink))
        return RunnerResult("max_turns", usage)

    async def _ask(self, agent: Agent, given: Given, sink: Sink) -> ModelTurn:
        request = ModelRequest(
            agent.model,
            (*_instructions(agent), *given.messages),
            _within(agent.controls, given.reply_tokens),
            tuple(tool.spec for tool in agent.tools),
        )
        turn = ModelTurn()
        async with self._provider.stream(request) as events:
            async for event in events:
                _take(event, turn, sink)
                if sink.is_full:
                    await sink.room()
        return turn


def _instructions(agent: Agent) -> list[ModelMessage]:
    return [ChatMessage("system", agent.instructions)] if agent.instructions else []


def _within(controls: Mapping[str, Any], reply_tokens: int | None) -> Mapping[str, Any]:
    """The controls, asking for no longer an answer than there is room for."""
    if reply_tokens is None or "max_tokens" not in controls:
        return controls
    return {**controls, "max_tokens": min(controls["max_tokens"], reply_tokens)}


def _take(event: said.ModelEvent, turn: ModelTurn, sink: Sink) -> None:
    match event:
        case said.TextDelta(text):
            turn.text.append(text)
            sink.emit(TextDelta(text))
        case said.ThinkingDelta(text):
            sink.emit(ThinkingDelta(text))
        case said.RefusalDelta(text):
            turn.refused = True
            sink.emit(RefusalDelta(text))
        case said.ToolCall():
            turn.calls.append(event)
        case said.Usage():
            turn.usage = event
        case said.Finish(reason):
            turn.finish = reason
        case _:
            assert_never(event)


async def _call_all(agent: Agent, calls: Sequence[ToolCall], sink: Sink) -> list[ToolResultMessage]:
    """Call the tools side by side; the results stand in the order of the calls."""
    places = asyncio.Semaphore(agent.max_calls_at_once)
    tools = {tool.spec.name: tool for tool in agent.tools}

    async def one(call: ToolCall) -> ToolResultMessage:
        async with places:
            return await _call(call, tools.get(call.name), sink)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]


async def _call(call: ToolCall, tool: Tool | None, sink: Sink) -> ToolResultMessage:
    server = None if tool is None else tool.server
    sink.emit(ToolStart(call.id, call.name, server, call.arguments))
    begun = time.monotonic()
    status, result = await _outcome(call, tool)
    milliseconds = round((time.monotonic() - begun) * 1000)
    preview = result[:_PREVIEW_CHARACTERS]
    sink.emit(ToolDone(call.id, status, preview, len(preview) < len(result), milliseconds))
    return ToolResultMessage(call.id, call.name, result)


async def _outcome(call: ToolCall, tool: Tool | None) -> tuple[Literal["completed", "failed"], str]:
    """What the model is told. A tool's failure is an answer, never the end of the run."""
    if tool is None:
        return "failed", f"There is no tool named {call.name}."
    try:
        arguments: Any = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError as error:
        return "failed", f"The arguments are not JSON: {error}"
    if not isinstance(arguments, dict):
        return "failed", "The arguments must be a JSON object."
    try:
        async with asyncio.timeout(tool.timeout):
            return "completed", await tool.call(cast("dict[str, Any]", arguments))
    except TimeoutError:
        return "failed", f"The tool did not answer within {tool.timeout:g} seconds."
    except Exception as error:  # noqa: BLE001 - the border of somebody else's code: its fault becomes an answer
        return "failed", f"The tool failed: {error}"
