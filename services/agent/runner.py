"""The only loop: ask the model, call the tools that it asks for, ask again, until it is done.

Deciding is pure (`decide`), doing is not. `Runner.run` is a coroutine with a sink rather than an async generator,
because tools run in a TaskGroup and yielding inside one is unsafe (PEP 789).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, assert_never

from services.agent import types as said
from services.agent.agent import Agent
from services.agent.calls import Book, Desk, NoBook
from services.agent.planning import CallPlan, plan_calls
from services.agent.types import ChatMessage, ModelMessage, ModelRequest, ToolCall, ToolCallMessage
from services.errors import ProviderContextTooLong, UnusableCalls
from services.providers.base import Provider
from services.runs.events import RefusalDelta, RunEvent, TextDelta, ThinkingDelta
from services.telemetry.meters import ModelMeter, NotMeasured, RequestMeter

_FAULTY_TURNS = 3
"""So many turns in a row of which no call can be made are answered to the model; then it is given up."""

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

    async def shrink(self) -> bool:
        """Give less from now on, as the last call was too long for the model; False if that is not possible."""
        ...

    async def measured(self, usage: said.Usage) -> None:
        """Take what the model's server has counted of the last call."""
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

    async def shrink(self) -> bool:
        """Nothing of it can be left out."""
        return False

    async def measured(self, usage: said.Usage) -> None:
        """Nothing was counted that this could be compared with."""


@dataclass(slots=True)
class ModelTurn:
    """One answer of the model, whole."""

    begun: bool = False
    """Whether anything of it was shown."""
    gap: str = ""
    """Goes before its first text, so that it does not run into what was said before the tools were called."""
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


def decide(turn: ModelTurn, *, is_last: bool = False) -> CallTools | Done:
    """What comes after this answer of the model. After the last one there are no more calls, whatever it asks for."""
    if is_last:
        return Done("max_turns")
    if turn.calls:
        return CallTools(tuple(turn.calls))
    if turn.refused or turn.finish == "refusal":
        return Done("refusal")
    return Done("length" if turn.finish == "length" else "stop")


class Runner:
    """Runs agents against one provider."""

    def __init__(self, provider: Provider, meter: ModelMeter | None = None) -> None:
        """Without a `meter` nobody measures: for questions on the side."""
        self._provider = provider
        self._meter = meter

    async def run(
        self,
        agent: Agent,
        conversation: Conversation,
        sink: Sink,
        book: Book | None = None,
        *,
        unanswered: Sequence[ToolCall] = (),
    ) -> RunnerResult:
        """Answer the newest message of the conversation, showing everything in `sink` as it comes.

        `unanswered` are the calls with which the conversation ends, if it is gone on with after a pause. A model that
        has used up its turns or its calls is asked a last time, to conclude without tools.

        Raises `UnusableCalls` and the `ProviderError`s of `services.errors`. Cancelling closes the provider's stream
        and the tools.
        """
        tally = _Tally(agent)
        desk = Desk(agent, sink, book or NoBook())
        if unanswered:
            await conversation.add(await desk.call_all(tally.plan(unanswered)))
        usage: said.Usage | None = None
        gap = ""
        while True:
            is_last = tally.begin_turn()
            turn = ModelTurn(gap=gap)
            await self._turn(agent, conversation, turn, sink, self._choice(agent, tally, is_last=is_last))
            usage = said.total(usage, turn.usage)
            match decide(turn, is_last=is_last):
                case Done(reason):
                    return RunnerResult(reason, usage)
                case CallTools(calls):
                    gap = turn.gap or _gap_after(turn)
                    plan = tally.plan(calls)
                    await conversation.add([ToolCallMessage("".join(turn.text), plan.calls)])
                    await conversation.add(await desk.call_all(plan))

    def _choice(self, agent: Agent, tally: "_Tally", *, is_last: bool) -> Mapping[str, Any]:
        """The controls of a turn. To make a model call a tool, and again and again, would leave it no way to answer."""
        if not agent.tools or not (is_last or tally.has_called):
            return agent.controls
        chosen = {name: value for name, value in agent.controls.items() if name != "tool_choice" or value == "none"}
        # The tools stay: without them some servers refuse the calls that stand in the conversation.
        ends = {"tool_choice": "none"} if is_last and "tool_choice" in self._provider.controls else {}
        return chosen | ends

    async def _turn(
        self, agent: Agent, conversation: Conversation, turn: ModelTurn, sink: Sink, controls: Mapping[str, Any]
    ) -> None:
        """One answer of the model; what is too long for it is made shorter once."""
        try:
            await self._ask(agent, await conversation.window(), turn, sink, controls)
        except ProviderContextTooLong:
            if turn.begun or not await conversation.shrink():
                raise
            await self._ask(agent, await conversation.window(), turn, sink, controls)
        if turn.usage is not None:
            await conversation.measured(turn.usage)

    async def _ask(self, agent: Agent, given: Given, turn: ModelTurn, sink: Sink, controls: Mapping[str, Any]) -> None:
        request = ModelRequest(
            agent.model,
            (*_instructions(agent), *given.messages),
            _within(controls, given.reply_tokens),
            tuple(tool.spec for tool in agent.tools),
        )
        measured = NotMeasured() if self._meter is None else self._meter.asked(self._provider.kind)
        with measured as asked:
            await self._read(request, turn, sink, asked)

    async def _read(self, request: ModelRequest, turn: ModelTurn, sink: Sink, asked: RequestMeter) -> None:
        async with self._provider.stream(request) as events:
            async for event in events:
                if not asked.has_begun:
                    asked.began()
                _take(event, turn, sink)
                if sink.is_full:
                    await sink.room()


class _Tally:
    """Counts what a run's model may still do."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._turns = 0
        self._faulty = 0
        self._calls: set[str] = set()

    @property
    def has_called(self) -> bool:
        """Whether the model has called a tool in this run."""
        return bool(self._calls)

    def begin_turn(self) -> bool:
        """Count a turn; whether it is the last, in which there is nothing left but to conclude."""
        self._turns += 1
        used_up = len(self._calls) >= self._agent.max_calls
        return self._turns > 1 and (self._turns >= self._agent.max_turns or used_up)

    def plan(self, calls: Sequence[ToolCall]) -> CallPlan:
        """What to do about the calls of a turn. Raises `UnusableCalls`."""
        room = min(self._agent.max_calls_per_turn, self._agent.max_calls - len(self._calls))
        plan = plan_calls(calls, self._agent.tools, room=room, taken=self._calls)
        self._faulty = self._faulty + 1 if plan.is_faulty else 0
        if self._faulty > _FAULTY_TURNS:
            raise UnusableCalls(tool=plan.calls[0].name)
        self._calls.update(call.id for call in plan.calls)
        return plan


def _gap_after(turn: ModelTurn) -> str:
    """What parts the text of a turn from that of the next."""
    text = "".join(turn.text[-1:])
    return "\n\n" if text and not text[-1].isspace() else ""


def _instructions(agent: Agent) -> list[ModelMessage]:
    return [ChatMessage("system", agent.instructions)] if agent.instructions else []


def _within(controls: Mapping[str, Any], reply_tokens: int | None) -> Mapping[str, Any]:
    """The controls, asking for no longer an answer than there is room for."""
    if reply_tokens is None or "max_tokens" not in controls:
        return controls
    return {**controls, "max_tokens": min(controls["max_tokens"], reply_tokens)}


def _take(event: said.ModelEvent, turn: ModelTurn, sink: Sink) -> None:
    turn.begun = True
    match event:
        case said.TextDelta(text):
            text, turn.gap = turn.gap + text, ""
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
