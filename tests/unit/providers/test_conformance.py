"""What every provider does, whichever protocol it speaks: through the official client, to a real server."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from services.agent.types import (
    ChatMessage,
    Finish,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.errors import (
    ProviderAuthentication,
    ProviderBrokeOff,
    ProviderContextTooLong,
    ProviderError,
    ProviderGarbled,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnreachable,
    UnknownModel,
)
from services.providers.base import ProviderTimeouts
from tests.fakes.script import (
    Body,
    CallPart,
    Cut,
    Endless,
    Fault,
    Hang,
    Headers,
    Pause,
    Raw,
    Status,
    Step,
    Stop,
    Text,
    Thinking,
    Tokens,
    Wait,
)
from tests.fakes.script import Finish as FinishStep
from tests.unit.providers.conftest import Peer, answer, ask, full_backlog, joined, watch
from tests.waiting import eventually

TOOL = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}}}})


async def test_text_comes_in_the_pieces_that_the_server_sent(peer: Peer) -> None:
    peer.fake.script(Text("Hel"), Text("lo"), Tokens(7, 2))
    assert await answer(peer.provider()) == [TextDelta("Hel"), TextDelta("lo"), Usage(7, 2), Finish("stop")]


async def test_a_piece_is_there_before_the_next_one_is_sent(peer: Peer) -> None:
    gate = asyncio.Event()
    peer.fake.script(Text("first "), Wait(gate), Text("second"))
    async with peer.provider().stream(ask()) as events, asyncio.timeout(5):
        assert await anext(events) == TextDelta("first ")
        gate.set()
        assert joined([event async for event in events]) == "second"


async def test_reasoning_is_kept_apart_from_the_reply(peer: Peer) -> None:
    peer.fake.script(Thinking("let me "), Thinking("see"), Text("42"))
    events = await answer(peer.provider())
    assert joined(events, ThinkingDelta) == "let me see"
    assert joined(events) == "42"


async def test_reasoning_in_tags_is_kept_apart_too(peer: Peer) -> None:
    peer.fake.script(Text("<th"), Text("ink>let me see</thi"), Text("nk>\n\n4"), Text("2"))
    events = await answer(peer.provider())
    assert joined(events, ThinkingDelta) == "let me see"
    assert joined(events) == "42"


async def test_a_tool_call_comes_whole_and_before_the_end(peer: Peer) -> None:
    peer.fake.script(CallPart(0, '{"a"', "add", "id0"), CallPart(0, ": 1}"))
    *_, called, usage, finish = await answer(peer.provider(), ask(tools=(TOOL,)))
    assert isinstance(called, ToolCall)
    assert (called.name, json.loads(called.arguments)) == ("add", {"a": 1})
    assert isinstance(usage, Usage)
    assert finish == Finish("tool_calls")


async def test_fragments_of_parallel_calls_may_be_interleaved(peer: Peer) -> None:
    peer.fake.script(
        CallPart(0, "", "add", "id0"),
        CallPart(1, '{"b"', "mul", "id1"),
        CallPart(0, '{"a"'),
        CallPart(1, ": 2}"),
        CallPart(0, ": 1}"),
    )
    events = await answer(peer.provider(), ask(tools=(TOOL,)))
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [(c.name, json.loads(c.arguments)) for c in calls] == [("add", {"a": 1}), ("mul", {"b": 2})]
    assert len({c.id for c in calls}) == 2


async def test_a_round_of_tools_is_told_to_the_server(peer: Peer) -> None:
    messages = (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "1+1?"),
        ToolCallMessage("Let me add.", (ToolCall("id0", "add", '{"a": {"b": 1}}'),)),
        ToolResultMessage("id0", "add", "2"),
    )
    peer.fake.reply("2")
    await answer(peer.provider(), ModelRequest("fake-small", messages, tools=(TOOL,)))
    sent = json.dumps(peer.fake.requests[0].body)
    assert all(word in sent for word in ("Be brief.", "1+1?", "Let me add.", "id0", '"add"'))
    # The whole schema arrives, nested parts too.
    assert json.dumps(TOOL.parameters) in sent


@pytest.mark.parametrize(("said", "meant"), [("stop", "stop"), ("length", "length")])
async def test_the_way_in_which_the_turn_ended_is_told(peer: Peer, said: str, meant: str) -> None:
    peer.fake.script(Text("x"), FinishStep(said))
    assert (await answer(peer.provider()))[-1] == Finish(meant)  # type: ignore[arg-type]


async def test_bytes_cut_in_the_middle_of_a_character_are_put_together(peer: Peer) -> None:
    text = "naïve 😀 \u2028 \x85 ende"
    peer.fake.script(Text(text), Text("é"), cut_every=1)
    assert joined(await answer(peer.provider())) == text + "é"


async def test_characters_cut_in_halves_are_put_together_and_the_unstorable_is_replaced(peer: Peer) -> None:
    peer.fake.script(Text("a \ud83d"), Text("\ude00 b\0"), Text("\udfff"), Text("c\ud83d"))
    assert joined(await answer(peer.provider())) == "a 😀 b\ufffd\ufffdc\ufffd"


async def test_one_giant_piece_is_fine(peer: Peer) -> None:
    peer.fake.script(Text("wörd " * 200_000))
    assert joined(await answer(peer.provider())) == "wörd " * 200_000


async def test_empty_pieces_are_dropped(peer: Peer) -> None:
    peer.fake.script(Text(""), Thinking(""), Text("a"), Text(""))
    assert [type(event) for event in await answer(peer.provider())] == [TextDelta, Usage, Finish]


# --- faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status(401, "Incorrect API key provided: sk-secret-key"), ProviderAuthentication),
        (Status(403, "not for you"), ProviderAuthentication),
        (Status(404, "model 'fake' not found", "model_not_found"), UnknownModel),
        (
            Status(400, "This model's maximum context length is 8 tokens", "context_length_exceeded"),
            ProviderContextTooLong,
        ),
        (Status(400, "the input length exceeds the context length"), ProviderContextTooLong),
        (Status(400, "temperature is odd"), ProviderRejected),
        (Status(429, "slow down", headers={"Retry-After": "77"}), ProviderRateLimited),
        (Status(301, "elsewhere", headers={"Location": "http://127.0.0.1:9/"}), ProviderRejected),
    ],
)
async def test_a_refused_request_tells_whose_fault_it_is_without_the_key(
    peer: Peer, status: Status, error: type[ProviderError]
) -> None:
    peer.fake.script(status)
    with pytest.raises(error) as caught:
        await answer(peer.provider())
    assert type(caught.value) is error
    assert "sk-secret" not in caught.value.message
    assert caught.value.details["status"] == status.status
    assert caught.value.details["provider"] == peer.provider().name
    assert len(peer.fake.requests) == 1


async def test_a_long_retry_after_is_an_error_at_once_that_tells_it(peer: Peer) -> None:
    peer.fake.script(Status(429, "slow down", headers={"Retry-After": "77"}))
    with pytest.raises(ProviderRateLimited) as caught:
        await answer(peer.provider())
    assert caught.value.details["retry_after"] == 77
    assert caught.value.retryable


@pytest.mark.parametrize(
    "trouble",
    [
        (Status(500, "oops"),),
        (Status(503, "busy"),),
        (Status(429, "wait", headers={"Retry-After": "0"}),),
        (Cut(),),
        (Stop(),),
    ],
)
async def test_a_call_that_failed_before_its_first_word_is_made_again(peer: Peer, trouble: tuple[Step, ...]) -> None:
    peer.fake.script(*trouble)
    peer.fake.script(*trouble)
    peer.fake.reply("third time lucky")
    assert joined(await answer(peer.provider())) == "third time lucky"


async def test_a_call_is_made_at_most_three_times(peer: Peer) -> None:
    for _ in range(4):
        peer.fake.script(Status(500, "oops"))
    with pytest.raises(ProviderError, match="oops"):
        await answer(peer.provider())
    assert len(peer.fake.requests) == 3


async def test_an_answer_that_has_begun_is_never_begun_again(peer: Peer) -> None:
    peer.fake.script(Text("Hel"), Pause(0.01), Cut())
    seen: list[ModelEvent] = []
    with pytest.raises(ProviderBrokeOff):
        await watch(peer.provider(), seen)
    assert seen == [TextDelta("Hel")]
    assert len(peer.fake.requests) == 1


async def test_an_answer_that_just_stops_is_a_fault(peer: Peer) -> None:
    peer.fake.script(Text("Hel"), Stop())
    with pytest.raises(ProviderBrokeOff):
        await answer(peer.provider())


async def test_an_error_inside_the_stream_is_a_fault(peer: Peer) -> None:
    peer.fake.script(Text("Hel"), Fault("the model fell over"))
    with pytest.raises(ProviderError, match="the model fell over"):
        await answer(peer.provider())


async def test_garbage_inside_the_stream_is_a_fault(peer: Peer) -> None:
    prefix = b"" if peer.kind == "ollama" else b"data: "
    peer.fake.script(Text("Hel"), Raw(prefix + b'{"choices": [nonsense\n\n'))
    with pytest.raises(ProviderGarbled):
        await answer(peer.provider())


@pytest.mark.parametrize("value", [b"[]", b"1", b'"x"', b"null"])
async def test_json_that_is_no_object_is_a_fault(peer: Peer, value: bytes) -> None:
    prefix = b"" if peer.kind == "ollama" else b"data: "
    peer.fake.script(Text("Hel"), Raw(prefix + value + b"\n\n"))
    with pytest.raises(ProviderGarbled):
        await answer(peer.provider())


async def test_a_web_page_with_status_200_is_a_fault_that_points_to_the_address(peer: Peer) -> None:
    peer.fake.script(Body("<!doctype html><title>Welcome</title>"))
    with pytest.raises(ProviderGarbled, match="address"):
        await answer(peer.provider())


async def test_nobody_listening_is_told_after_the_retries(peer: Peer) -> None:
    provider = peer.provider()
    await peer.fake.__aexit__(None, None, None)
    with pytest.raises(ProviderUnreachable):
        await answer(provider)


async def test_a_kept_alive_connection_that_the_server_has_dropped_is_replaced(peer: Peer) -> None:
    provider = peer.provider()
    await answer(provider)
    await peer.fake.drop_idle_connections()
    assert joined(await answer(provider)) == "Hello there."


async def test_null_fields_are_as_good_as_missing_ones(peer: Peer) -> None:
    empty = {"choices": None, "usage": None, "message": None, "item": None, "response": None, "delta": None}
    prefix = b"" if peer.kind == "ollama" else b"data: "
    peer.fake.script(Raw(prefix + json.dumps(empty).encode() + b"\n\n"), Text("fine"))
    assert joined(await answer(peer.provider())) == "fine"


# --- time -----------------------------------------------------------------------------------------------------

QUICK = ProviderTimeouts(connect=5.0, first_token=0.15, between_tokens=0.1)


async def test_a_server_that_cannot_be_connected_to_is_given_up(peer: Peer) -> None:
    with full_backlog() as address:
        provider = peer.provider(address=address, timeouts=ProviderTimeouts(connect=0.1, first_token=30))
        await provider.warm()
        with pytest.raises(ProviderTimeout, match="connected"):
            await asyncio.wait_for(answer(provider), 10)


@pytest.mark.parametrize("steps", [(Hang(),), (Headers(), Hang())])
async def test_a_server_that_never_begins_is_given_up(peer: Peer, steps: tuple[Step, ...]) -> None:
    provider = peer.provider(timeouts=QUICK)
    await provider.warm()
    peer.fake.script(*steps)
    started = time.monotonic()
    with pytest.raises(ProviderTimeout, match="beginning") as caught:
        await answer(provider)
    assert 0.15 <= time.monotonic() - started < 3
    assert caught.value.details["provider"] == provider.name
    assert len(peer.fake.requests) == 1
    await asyncio.wait_for(peer.fake.requests[0].closed, 5)


async def test_a_server_that_falls_silent_is_given_up(peer: Peer) -> None:
    provider = peer.provider(timeouts=replace(QUICK, first_token=10))
    await provider.warm()
    peer.fake.script(Text("Hel"), Hang())
    with pytest.raises(ProviderTimeout, match="more"):
        await answer(provider)
    assert peer.fake.requests[0].ended_by in (None, "client")
    await asyncio.wait_for(peer.fake.requests[0].closed, 5)


async def test_a_reader_may_take_all_the_time_it_wants(peer: Peer) -> None:
    provider = peer.provider(timeouts=QUICK)
    await provider.warm()
    peer.fake.script(Text("a"), Text("b"), Text("c"))
    async with provider.stream(ask()) as events:
        seen = [event async for event in events if not await asyncio.sleep(0.15)]
    assert joined(seen) == "abc"


async def test_a_stream_longer_than_every_limit_is_fine_while_it_moves(peer: Peer) -> None:
    provider = peer.provider(timeouts=QUICK)
    await provider.warm()
    steps: list[Step] = []
    for _ in range(12):
        steps += [Text("x"), Pause(0.03)]
    peer.fake.script(*steps)
    assert joined(await answer(provider)) == "x" * 12


# --- leaving --------------------------------------------------------------------------------------------------


async def test_leaving_the_stream_closes_the_connection_at_once(peer: Peer) -> None:
    peer.fake.script(Endless())
    async with peer.provider().stream(ask()) as events:
        await anext(events)
    left = time.monotonic()
    assert await asyncio.wait_for(peer.fake.requests[0].closed, 5) - left < 0.5
    assert peer.fake.requests[0].ended_by == "client"


@pytest.mark.parametrize(
    ("steps", "opened", "shown"),
    [((Hang(),), False, 0), ((Headers(), Hang()), True, 0), ((Text("Hel"), Hang()), True, 1), ((Endless(),), True, 3)],
)
async def test_cancelling_closes_the_connection_at_once(
    peer: Peer, steps: tuple[Step, ...], opened: bool, shown: int
) -> None:
    peer.fake.script(*steps)
    seen: list[ModelEvent] = []
    task = asyncio.create_task(watch(peer.provider(), seen))
    request = await peer.fake.request()
    await eventually(lambda: request.opened == opened and len(seen) >= shown)
    cancelled = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(request.closed, 5) - cancelled < 0.5
    assert request.ended_by == "client"


async def test_waiting_for_a_retry_can_be_cancelled(peer: Peer) -> None:
    peer.fake.script(Status(429, "wait", headers={"Retry-After": "9"}))
    task = asyncio.create_task(answer(peer.provider()))
    await asyncio.wait_for((await peer.fake.request()).closed, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(peer.fake.requests) == 1


async def test_a_connection_is_used_again(peer: Peer) -> None:
    provider = peer.provider()
    for _ in range(3):
        await answer(provider)
    assert len({request.peer for request in peer.fake.requests}) == 1


async def test_hundreds_of_streams_run_at_once(peer: Peer) -> None:
    gate = asyncio.Event()
    for _ in range(150):
        peer.fake.script(Text("a"), Wait(gate), Text("b"))
    provider = peer.provider()
    tasks = [asyncio.create_task(answer(provider)) for _ in range(150)]
    await peer.fake.request(149, timeout=30)
    gate.set()
    assert {joined(events) for events in await asyncio.gather(*tasks)} == {"ab"}


async def test_hundreds_of_streams_are_left_at_once(peer: Peer) -> None:
    provider = peer.provider()
    for _ in range(200):
        peer.fake.script(Text("a"), Hang())
    tasks = [asyncio.create_task(answer(provider)) for _ in range(200)]
    await peer.fake.request(199, timeout=30)
    cancelled = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    closed = await asyncio.wait_for(asyncio.gather(*(request.closed for request in peer.fake.requests)), 10)
    assert max(closed) - cancelled < 2


# --- models ---------------------------------------------------------------------------------------------------


async def test_models_are_listed(peer: Peer) -> None:
    assert [info.id for info in await peer.provider().models()] == ["fake-small"]


async def test_an_unreachable_server_has_no_window_but_fails_nothing(peer: Peer) -> None:
    provider = peer.provider()
    await peer.fake.__aexit__(None, None, None)
    window = await provider.context_window("nobody-knows")
    assert window == (8192 if peer.kind == "ollama" else None)
