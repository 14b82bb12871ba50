"""The loop: what is decided after an answer, and what is done about it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import Any

import pytest

from services.agent import types as said
from services.agent.agent import Agent, Answer, OnProgress, Tool
from services.agent.calls import CallStatus, NoBook, Refused
from services.agent.planning import Ready
from services.agent.runner import CallTools, Done, ModelTurn, Runner, Spoken, decide
from services.agent.types import (
    ChatMessage,
    Finish,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.errors import ProviderBrokeOff, Unavailable, UnusableCalls
from services.providers.base import Provider, ProviderKind
from services.runs.events import (
    RefusalDelta,
    RunEvent,
    TextDelta,
    ThinkingDelta,
    ToolDone,
    ToolProgress,
    ToolStart,
)

Step = ModelEvent | Exception | asyncio.Event
"""What the model does next; it waits for an `asyncio.Event`."""


class FakeModel:
    """A `Provider` that gives one scripted answer per call and remembers what it was asked."""

    def __init__(self, *answers: Sequence[Step]) -> None:
        self.name = "fake"
        self.kind: ProviderKind = "demo"
        self.default_model: str | None = "fake-small"
        self.controls: frozenset[str] = frozenset()
        self.requests: list[ModelRequest] = []
        self.closed = 0
        self._answers = list(answers)

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        self.requests.append(request)
        return aclosing(self._answer(self._answers.pop(0)))

    async def _answer(self, steps: Sequence[Step]) -> AsyncGenerator[ModelEvent, None]:
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.closed += 1

    async def models(self) -> list[ModelInfo]:
        return []

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        return None

    async def warm(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


class Shown:
    """A sink that keeps everything, and is full after every event if it is told to be."""

    def __init__(self, *, narrow: bool = False) -> None:
        self.events: list[RunEvent] = []
        self.waits = 0
        self.is_full = narrow

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)

    async def room(self) -> None:
        self.waits += 1
        await asyncio.sleep(0)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


HELLO = [ChatMessage("user", "Hello")]


def call(number: int, name: str = "echo", arguments: str = "{}") -> ToolCall:
    return ToolCall(f"call_{number}", name, arguments)


def answer(*events: Step, finish: said.FinishReason = "stop") -> list[Step]:
    return [*events, Finish(finish)]


def tool(call: Callable[[Mapping[str, Any]], Awaitable[str]], name: str = "echo", **more: Any) -> Tool:
    async def answer(arguments: Mapping[str, Any], _: OnProgress) -> Answer:
        return Answer(await call(arguments))

    return Tool(ToolSpec(name, "", {}), answer, **{"timeout": 5.0, **more})


async def run(model: Provider, *tools: Tool, sink: Shown | None = None, **agent: Any):
    async with asyncio.timeout(5):
        return await Runner(model).run(Agent("m", "", tools=tools, **agent), Spoken(*HELLO), sink or Shown())


async def echo(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("text", ""))


# --- deciding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "step"),
    [
        (ModelTurn(), Done("stop")),
        (ModelTurn(text=["Hi"]), Done("stop")),
        (ModelTurn(text=["Hi"], finish="length"), Done("length")),
        (ModelTurn(finish="refusal"), Done("refusal")),
        (ModelTurn(refused=True), Done("refusal")),
        (ModelTurn(refused=True, finish="length"), Done("refusal")),
        (ModelTurn(calls=[call(1), call(2)], finish="tool_calls"), CallTools((call(1), call(2)))),
        (ModelTurn(calls=[call(1)], finish="stop"), CallTools((call(1),))),
        (ModelTurn(finish="tool_calls"), Done("stop")),
    ],
)
def test_what_comes_after_an_answer_follows_from_it_alone(turn: ModelTurn, step: CallTools | Done):
    assert decide(turn) == step


# --- one answer -----------------------------------------------------------------------------------------------------


async def test_everything_that_the_model_says_is_shown_in_order():
    sink = Shown()
    model = FakeModel(answer(said.ThinkingDelta("Hm"), said.TextDelta("Yes"), said.RefusalDelta("No"), Usage(3, 2, 1)))
    result = await run(model, sink=sink)
    assert sink.events == [ThinkingDelta("Hm"), TextDelta("Yes"), RefusalDelta("No")]
    assert (result.reason, result.usage) == ("refusal", Usage(3, 2, 1))
    assert model.closed == 1


async def test_the_model_is_asked_as_the_agent_says():
    model = FakeModel(answer())
    spec = ToolSpec("echo", "Says it again", {"type": "object"})
    agent = Agent("m", "Be brief.", {"seed": 1}, (Tool(spec, tool(echo).call),))
    await Runner(model).run(agent, Spoken(*HELLO), Shown())
    assert model.requests == [
        ModelRequest("m", (ChatMessage("system", "Be brief."), *HELLO), {"seed": 1}, (spec,)),
    ]


async def test_without_instructions_there_is_no_system_message():
    model = FakeModel(answer())
    await run(model)
    assert model.requests[0].messages == tuple(HELLO)


async def test_a_full_sink_is_waited_for_after_every_event():
    sink = Shown(narrow=True)
    await run(FakeModel(answer(said.TextDelta("a"), said.TextDelta("b"))), sink=sink)
    assert sink.waits >= 2


async def test_a_fault_of_the_provider_is_the_callers_to_handle_and_the_stream_is_closed():
    model, sink = FakeModel([said.TextDelta("Half"), ProviderBrokeOff()]), Shown()
    with pytest.raises(ProviderBrokeOff):
        await run(model, sink=sink)
    assert sink.events == [TextDelta("Half")]
    assert model.closed == 1


async def test_a_sink_that_has_had_enough_closes_the_stream():
    class Enough(Shown):
        def emit(self, event: RunEvent) -> None:
            super().emit(event)
            raise OverflowError

    model = FakeModel(answer(said.TextDelta("a"), said.TextDelta("b")))
    with pytest.raises(OverflowError):
        await run(model, sink=Enough())
    assert model.closed == 1


# --- tools ----------------------------------------------------------------------------------------------------------


async def test_the_model_is_asked_again_with_its_calls_and_their_results():
    model = FakeModel(
        answer(said.TextDelta("Let me see. "), call(1, arguments='{"text": "42"}'), finish="tool_calls"),
        answer(said.TextDelta("It is 42.")),
    )
    sink = Shown()
    result = await run(model, tool(echo), sink=sink)
    assert result.reason == "stop"
    asked = call(1, arguments='{"text": "42"}')
    assert model.requests[1].messages == (
        *HELLO,
        ToolCallMessage("Let me see. ", (asked,)),
        ToolResultMessage("call_1", "echo", "42"),
    )
    assert [type(event) for event in sink.events] == [TextDelta, ToolStart, ToolDone, TextDelta]
    done = sink.of(ToolDone)[0]
    assert (done.tool_call_id, done.status, done.result, done.truncated) == ("call_1", "completed", "42", False)


@pytest.mark.parametrize(("first", "shown"), [("Wait.", "Wait.\n\nDone."), ("Wait. ", "Wait. Done."), ("", "Done.")])
async def test_what_is_said_after_a_tool_does_not_run_into_what_was_said_before(first: str, shown: str):
    before = [said.TextDelta(first)] if first else []
    model = FakeModel(
        answer(*before, call(1), finish="tool_calls"),
        answer(call(2), finish="tool_calls"),
        answer(said.TextDelta("Do"), said.TextDelta("ne.")),
    )
    sink = Shown()
    await run(model, tool(echo), sink=sink)
    text = "".join(event.delta for event in sink.of(TextDelta))
    assert text == shown


async def test_calls_run_side_by_side_and_their_results_stand_in_the_order_of_the_calls():
    everybody_is_here = asyncio.Barrier(3)
    order: list[str] = []

    async def meet(arguments: Mapping[str, Any]) -> str:
        await everybody_is_here.wait()
        for _ in range(3 - int(arguments["n"])):  # the last call is done first
            await asyncio.sleep(0)
        order.append(str(arguments["n"]))
        return str(arguments["n"])

    calls = [call(n, arguments=f'{{"n": {n}}}') for n in range(3)]
    model = FakeModel(answer(*calls, finish="tool_calls"), answer())
    await run(model, tool(meet))
    results = model.requests[1].messages[-3:]
    assert [result.content for result in results if isinstance(result, ToolResultMessage)] == ["0", "1", "2"]
    assert order != ["0", "1", "2"]


async def test_no_more_calls_run_at_once_than_the_agent_allows():
    running, most = 0, 0

    async def count(_: Mapping[str, Any]) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return ""

    model = FakeModel(answer(*(call(n) for n in range(10)), finish="tool_calls"), answer())
    await run(model, tool(count), max_calls_at_once=3)
    assert most == 3


async def failing(_: Mapping[str, Any]) -> str:
    raise Unavailable("the disk is full")


async def breaking(_: Mapping[str, Any]) -> str:
    raise ValueError("a secret of ours")


async def hanging(_: Mapping[str, Any]) -> str:
    await asyncio.Event().wait()
    return "never"


@pytest.mark.parametrize(
    ("asked", "tools", "told"),
    [
        (call(1, "nobody"), [tool(echo)], "There is no tool named nobody. There are: echo."),
        (call(1, "nobody"), [], "There are no tools at all."),
        (call(1), [tool(echo, check=lambda _: "text is missing")], "do not fit the tool: text is missing"),
        (call(1, arguments='{"n": NaN}'), [tool(echo)], "not JSON"),
        (call(1), [tool(breaking)], "The tool failed."),
        (call(1, arguments='{"text": '), [tool(echo)], "not JSON"),
        (call(1, arguments="[1]"), [tool(echo)], "must be a JSON object"),
        (call(1, arguments='"text"'), [tool(echo)], "must be a JSON object"),
        (call(1), [tool(failing)], "the disk is full"),
        (call(1), [tool(hanging, timeout=0.01)], "did not answer within 0.01 seconds"),
    ],
)
async def test_a_call_that_fails_is_answered_to_the_model_and_the_run_goes_on(
    asked: ToolCall, tools: list[Tool], told: str
):
    model, sink = FakeModel(answer(asked, finish="tool_calls"), answer(said.TextDelta("Sorry."))), Shown()
    result = await run(model, *tools, sink=sink)
    assert result.reason == "stop"
    answered = model.requests[1].messages[-1]
    assert isinstance(answered, ToolResultMessage)
    assert told in answered.content
    assert [event.status for event in sink.of(ToolDone)] == ["failed"]
    assert sink.events[-1] == TextDelta("Sorry.")


async def test_one_failing_call_leaves_its_neighbours_alone():
    asked = [call(1, "bad"), call(2, arguments='{"text": "fine"}'), call(3, "slow")]
    model, sink = FakeModel(answer(*asked, finish="tool_calls"), answer()), Shown()
    await run(model, tool(failing, "bad"), tool(echo), tool(hanging, "slow", timeout=0.01), sink=sink)
    statuses = {event.tool_call_id: event.status for event in sink.of(ToolDone)}
    assert statuses == {"call_1": "failed", "call_2": "completed", "call_3": "failed"}


async def test_a_call_without_arguments_gets_an_empty_object():
    given: list[Mapping[str, Any]] = []

    async def keep(arguments: Mapping[str, Any]) -> str:
        given.append(arguments)
        return ""

    await run(FakeModel(answer(call(1, arguments=""), finish="tool_calls"), answer()), tool(keep))
    assert given == [{}]


async def test_a_long_result_is_shown_in_part_and_given_whole():
    async def talk(_: Mapping[str, Any]) -> str:
        return "x" * 5_000

    model, sink = FakeModel(answer(call(1), finish="tool_calls"), answer()), Shown()
    await run(model, tool(talk), sink=sink)
    done = sink.of(ToolDone)[0]
    assert (len(done.result), done.truncated) == (2_000, True)
    answered = model.requests[1].messages[-1]
    assert isinstance(answered, ToolResultMessage)
    assert len(answered.content) == 5_000


async def test_a_model_that_calls_for_ever_is_stopped():
    model = FakeModel(*[answer(said.TextDelta("again "), call(n), finish="tool_calls") for n in range(5)])
    sink = Shown()
    result = await run(model, tool(echo), sink=sink, max_turns=3)
    assert result.reason == "max_turns"
    assert len(model.requests) == 3
    assert len(sink.of(ToolDone)) == 2
    assert len(sink.of(TextDelta)) == 3


async def test_in_its_last_turn_a_model_is_kept_from_calling_so_that_it_can_conclude():
    model = FakeModel(answer(call(1), finish="tool_calls"), answer(said.TextDelta("As far as I know: 42.")))
    model.controls = frozenset({"tool_choice"})
    result = await run(model, tool(echo), max_turns=2, controls={"tool_choice": "auto"})
    assert result.reason == "max_turns"
    assert [request.controls for request in model.requests] == [{"tool_choice": "auto"}, {"tool_choice": "none"}]
    assert model.requests[1].tools


async def test_a_model_that_has_used_up_its_calls_is_asked_to_conclude():
    model = FakeModel(answer(*(call(n) for n in range(5)), finish="tool_calls"), answer(said.TextDelta("Enough.")))
    sink = Shown()
    result = await run(model, tool(echo), sink=sink, max_calls=3)
    assert result.reason == "max_turns"
    assert sorted(event.status for event in sink.of(ToolDone)) == [*["completed"] * 3, *["failed"] * 2]


@pytest.mark.parametrize("choice", ["required", {"name": "echo"}])
async def test_a_model_that_must_call_a_tool_must_so_once(choice: object):
    model = FakeModel(answer(call(1), finish="tool_calls"), answer())
    await run(model, tool(echo), controls={"tool_choice": choice, "seed": 1})
    assert [request.controls for request in model.requests] == [{"tool_choice": choice, "seed": 1}, {"seed": 1}]


async def test_calls_over_the_limit_of_a_turn_are_answered_and_not_made():
    made: list[Mapping[str, Any]] = []

    async def count(arguments: Mapping[str, Any]) -> str:
        made.append(arguments)
        return ""

    model = FakeModel(answer(*(call(n) for n in range(60)), finish="tool_calls"), answer())
    await run(model, tool(count), max_calls_per_turn=50)
    results = model.requests[1].messages[-60:]
    assert len(made) == 50
    told = [message.content for message in results if isinstance(message, ToolResultMessage)]
    assert [text for text in told if "Too many calls" in text] == told[50:]
    assert len(told) == 60


async def test_calls_without_an_id_of_their_own_get_one():
    ids = ["", "same", "same", "x" * 500]
    calls = [ToolCall(id, "echo", f'{{"text": "{n}"}}') for n, id in enumerate(ids)]
    model = FakeModel(
        answer(*calls, finish="tool_calls"), answer(ToolCall("same", "echo", "{}"), finish="tool_calls"), answer()
    )
    sink = Shown()
    await run(model, tool(echo), sink=sink)
    asked = [message for message in model.requests[2].messages if isinstance(message, ToolCallMessage)]
    used = [made.id for message in asked for made in message.calls]
    assert len(set(used)) == 5
    assert all(0 < len(id) <= 100 for id in used)
    assert used[1] == "same"
    results = [message for message in model.requests[2].messages if isinstance(message, ToolResultMessage)]
    assert [result.call_id for result in results] == used
    assert [result.content for result in results][:4] == ["0", "1", "2", "3"]
    assert [event.tool_call_id for event in sink.of(ToolStart)] == used


async def test_what_no_model_server_would_take_back_is_not_given_back():
    odd = [ToolCall("a", "functions.echo it!", '{"text": '), ToolCall("b", "", "[]"), ToolCall("c", "echo", "")]
    model = FakeModel(answer(*odd, finish="tool_calls"), answer())
    await run(model, tool(echo))
    message = model.requests[1].messages[1]
    assert isinstance(message, ToolCallMessage)
    assert [(made.name, made.arguments) for made in message.calls] == [
        ("functions_echo_it_", "{}"),
        ("unnamed", "{}"),
        ("echo", "{}"),
    ]


async def test_a_model_that_keeps_calling_in_vain_is_given_up_after_three_answers():
    model = FakeModel(*[answer(call(n, "nobody"), finish="tool_calls") for n in range(9)])
    sink = Shown()
    with pytest.raises(UnusableCalls) as error:
        await run(model, tool(echo), sink=sink)
    assert error.value.whose == "model"
    assert len(model.requests) == 4
    assert len(sink.of(ToolDone)) == 3


async def test_a_good_call_between_bad_ones_gives_the_model_new_credit():
    bad = [answer(call(n, "nobody"), finish="tool_calls") for n in range(6)]
    good = answer(call(10), finish="tool_calls")
    model = FakeModel(*bad[:3], good, *bad[3:], answer(said.TextDelta("At last.")))
    assert (await run(model, tool(echo))).reason == "stop"


async def test_how_far_a_call_has_come_is_shown_a_few_times_a_second_at_most():
    async def report(_: Mapping[str, Any], progress: OnProgress) -> Answer:
        for step in range(1000):
            progress(float(step), 1000.0, "x" * 10_000)
        progress(float("nan"))
        return Answer("done")

    model, sink = FakeModel(answer(call(1), finish="tool_calls"), answer()), Shown()
    await run(model, Tool(ToolSpec("echo", "", {}), report), sink=sink)
    shown = sink.of(ToolProgress)
    assert 1 <= len(shown) < 50
    assert (shown[0].tool_call_id, shown[0].progress, shown[0].total, len(shown[0].message)) == ("call_1", 0, 1000, 500)


async def test_what_cannot_be_stored_is_replaced_in_results():
    async def talk(_: Mapping[str, Any]) -> str:
        return "a\0b\ud800c"

    model, sink = FakeModel(answer(call(1), finish="tool_calls"), answer()), Shown()
    await run(model, tool(talk), sink=sink)
    assert sink.of(ToolDone)[0].result == "a\ufffdb\ufffdc"


async def test_an_error_that_the_tool_itself_tells_is_its_answer():
    async def refuse(_: Mapping[str, Any], __: OnProgress) -> Answer:
        return Answer("no such file", is_error=True)

    model, sink = FakeModel(answer(call(1), finish="tool_calls"), answer()), Shown()
    await run(model, Tool(ToolSpec("echo", "", {}), refuse), sink=sink)
    assert [(event.status, event.result) for event in sink.of(ToolDone)] == [("failed", "no such file")]


# --- agreeing, and going on after a pause -------------------------------------------------------------------------


class Notes(NoBook):
    """A book that says no to some calls, changes others, and knows what ended before."""

    def __init__(self, **ended: str) -> None:
        self.begun: list[Ready] = []
        self.written: list[tuple[str, str, str]] = []
        self._ended = ended

    def told(self, call: ToolCall) -> str | None:
        return self._ended.get(call.id)

    async def agree(self, ready: Ready) -> Ready | Refused:
        match ready.arguments.get("text"):
            case "bad":
                return Refused("The user said no.")
            case "change":
                return replace(ready, arguments={"text": "changed"})
            case _:
                return ready

    async def begin(self, ready: Ready) -> None:
        self.begun.append(ready)

    async def end(self, call: ToolCall, status: CallStatus, answer: Answer, ms: int) -> str:
        self.written.append((call.id, status, answer.text))
        return f"[{answer.text}]"


async def test_a_call_is_written_down_before_it_is_made_and_after():
    notes = Notes()
    order: list[str] = []

    async def look(_: Mapping[str, Any]) -> str:
        order.extend(ready.call.id for ready in notes.begun)
        return "seen"

    model = FakeModel(answer(call(1), finish="tool_calls"), answer())
    await Runner(model).run(Agent("m", "", tools=(tool(look),)), Spoken(*HELLO), Shown(), notes)
    assert order == ["call_1"]
    assert notes.written == [("call_1", "completed", "seen")]
    told = model.requests[1].messages[-1]
    assert isinstance(told, ToolResultMessage)
    assert told.content == "[seen]"


async def test_a_call_that_somebody_does_not_want_is_answered_and_not_made():
    notes, sink = Notes(), Shown()
    asked = [call(n, arguments=f'{{"text": "{text}"}}') for n, text in enumerate(["good", "bad", "change"])]
    model = FakeModel(answer(*asked, finish="tool_calls"), answer())
    await Runner(model).run(Agent("m", "", tools=(tool(echo),)), Spoken(*HELLO), sink, notes)
    assert [dict(ready.arguments) for ready in notes.begun] == [{"text": "good"}, {"text": "changed"}]
    assert {event.tool_call_id: event.status for event in sink.of(ToolDone)} == {
        "call_0": "completed",
        "call_1": "rejected",
        "call_2": "completed",
    }
    assert [event.tool_call_id for event in sink.of(ToolStart)] == ["call_0", "call_2"]
    told = [message.content for message in model.requests[1].messages if isinstance(message, ToolResultMessage)]
    assert told == ["[good]", "[The user said no.]", "[changed]"]


async def test_after_a_pause_only_what_was_not_done_is_done():
    notes, sink = Notes(call_0="from before"), Shown()
    waiting = (call(0), call(1, arguments='{"text": "now"}'))
    conversation = Spoken(*HELLO, ToolCallMessage("", waiting))
    model = FakeModel(answer(said.TextDelta("Done.")))
    result = await Runner(model).run(Agent("m", "", tools=(tool(echo),)), conversation, sink, notes, unanswered=waiting)
    assert result.reason == "stop"
    assert [ready.call.id for ready in notes.begun] == ["call_1"]
    told = [message.content for message in model.requests[0].messages if isinstance(message, ToolResultMessage)]
    assert told == ["from before", "[now]"]
    assert [type(event) for event in sink.events] == [ToolStart, ToolDone, TextDelta]


@pytest.mark.parametrize(
    ("told", "summed"),
    [
        ([Usage(10, 5, 2), Usage(20, 3, 1)], Usage(30, 8, 3)),
        ([None, Usage(20, 3, 1)], Usage(20, 3, 1)),
        ([Usage(10, 5, 2), None], Usage(10, 5, 2)),
        ([None, None], None),
    ],
)
async def test_usage_is_summed_over_the_answers(told: list[Usage | None], summed: Usage | None):
    first, second = ([] if usage is None else [usage] for usage in told)
    model = FakeModel(answer(call(1), *first, finish="tool_calls"), answer(*second))
    assert (await run(model, tool(echo))).usage == summed


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_cancelling_closes_the_models_stream():
    model, sink = FakeModel([said.TextDelta("Hel"), asyncio.Event()]), Shown()
    task = asyncio.create_task(run(model, sink=sink))
    while not sink.events:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.closed == 1


async def test_cancelling_during_tools_ends_all_of_them_and_keeps_what_was_done():
    ended: list[str] = []
    begun = asyncio.Event()

    async def hang(arguments: Mapping[str, Any]) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hang")
        return ""

    calls = [call(1, arguments='{"text": "done"}'), call(2, "hang"), call(3, "hang")]
    model, sink = FakeModel(answer(*calls, finish="tool_calls")), Shown()
    task = asyncio.create_task(run(model, tool(echo), tool(hang, "hang"), sink=sink))
    await asyncio.wait_for(begun.wait(), 5)
    while not sink.of(ToolDone):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["hang", "hang"]
    assert [event.tool_call_id for event in sink.of(ToolDone)] == ["call_1"]
    assert len(model.requests) == 1
