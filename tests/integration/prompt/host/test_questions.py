"""Scripts that ask a model."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from db.pool import Database
from services.agent.types import Usage
from services.errors import InvalidControl, ProviderError, ReplyTooLong, UnknownControl, UnknownProvider
from services.providers.registry import Providers
from services.scripts.types import ScriptFault
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Endless, Finish, Hang, Refusal, Status, Text, Thinking, Tokens
from tests.integration.prompt.host.conftest import CONNECTIONS
from tests.integration.prompt.host.scene import Scene, call


async def test_with_an_input_the_instructions_are_the_systems(scene: Scene, model: OpenAIFake):
    model.reply("cal", "m")

    assert await call(scene.host(), "generate", "In one word, the mood:", "All is well.") == "calm"

    body = model.requests[0].body
    assert body["model"] == "fake-small"
    assert body["messages"] == [
        {"role": "system", "content": "In one word, the mood:"},
        {"role": "user", "content": "All is well."},
    ]


async def test_without_an_input_they_are_the_users(scene: Scene, model: OpenAIFake):
    await call(scene.host(), "generate", "A word, please.")

    assert model.requests[0].body["messages"] == [{"role": "user", "content": "A word, please."}]


async def test_thinking_is_not_part_of_the_answer(scene: Scene, model: OpenAIFake):
    model.script(Thinking("hm"), Text("<think>well</think>"), Text("yes"))

    assert await call(scene.host(), "generate", "?") == "yes"


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
async def test_reflecting_puts_the_system_prompt_first(scene: Scene, model: OpenAIFake, role: str):
    await scene.say("nothing of this is sent")

    await call(scene.host(), "reflect", "What matters here?", role)

    assert model.requests[0].body["messages"] == [
        {"role": "system", "content": "You are kind."},
        {"role": role, "content": "What matters here?"},
    ]


async def test_nobody_else_can_reflect(scene: Scene, model: OpenAIFake):
    with pytest.raises(ScriptFault, match="role must be"):
        await call(scene.host(), "reflect", "?", "tool")

    assert model.requests == []


async def test_what_it_cost_is_told_to_the_turn(scene: Scene, model: OpenAIFake):
    view = scene.sight()
    for tokens in (Tokens(7, 3), Tokens(20, 5)):
        model.script(Text("x"), tokens, Finish())
        await call(scene.host(view), "reflect", "?")

    assert view.spent == [Usage(7, 3), Usage(20, 5)]
    assert view.questions_left == 8


@pytest.mark.parametrize("name", ["generate", "reflect"])
async def test_a_module_that_asked_too_often_asks_nobody(scene: Scene, model: OpenAIFake, name: str):
    with pytest.raises(ScriptFault, match="too often"):
        await call(scene.host(scene.sight(questions_left=0)), name, "?")

    assert model.requests == []


async def test_the_turns_controls_hold_where_the_script_says_nothing(scene: Scene, model: OpenAIFake):
    controls = {"temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["\n"], "response_format": {"type": "json"}}
    host = scene.host(scene.sight(controls=controls))

    for name in ("generate", "reflect"):
        await call(host, name, "?", top_p=0.1, seed=None)

    for request in model.requests:
        assert (request.body["temperature"], request.body["top_p"]) == (0.5, 0.1)
        assert not {"seed", "stop", "response_format"} & set(request.body)


async def test_another_model_gets_the_scripts_controls_alone(scene: Scene, model: OpenAIFake):
    host = scene.host(scene.sight(controls={"temperature": 0.5}))

    await call(host, "generate", "?", model="fake-large", top_p=0.1)

    body = model.requests[0].body
    assert (body["model"], body["top_p"], "temperature" in body) == ("fake-large", 0.1, False)


async def test_another_connection_answers_with_its_own_model(scene: Scene, model: OpenAIFake):
    await call(scene.host(), "generate", "Hello", provider="azure")

    assert model.requests[0].body["model"] == "deployed"


@pytest.mark.parametrize("question", ["generate", "reflect"])
async def test_the_demo_does_not_pass_for_a_model(scene: Scene, providers: Providers, question: str):
    sight = scene.sight()
    sight.casting = replace(sight.casting, provider=providers.get("demo"), model="demo")

    with pytest.raises(ScriptFault, match="no model is connected"):
        await call(scene.host(sight), question, "Hello")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"provider": "elsewhere"}, UnknownProvider),
        ({"temperatur": 1}, UnknownControl),
        ({"temperature": "hot"}, InvalidControl),
    ],
)
async def test_what_cannot_be_asked_is_an_error_that_says_why(
    scene: Scene, model: OpenAIFake, arguments: dict[str, str | int], error: type[Exception]
):
    with pytest.raises(error):
        await call(scene.host(), "generate", "?", **arguments)

    assert model.requests == []


async def test_a_failure_of_the_model_server_is_told_in_its_words(scene: Scene, model: OpenAIFake):
    model.script(Status(400, "that is not possible"))

    with pytest.raises(ProviderError, match="that is not possible"):
        await call(scene.host(), "generate", "?")


async def test_a_refusal_is_a_fault_with_what_the_model_said(scene: Scene, model: OpenAIFake):
    view = scene.sight()
    model.script(Refusal("I would "), Refusal("rather not."), Tokens(3, 4), Finish())

    with pytest.raises(ScriptFault, match=r"the model refused: I would rather not\."):
        await call(scene.host(view), "generate", "?")

    assert view.spent == [Usage(3, 4)]


async def test_an_answer_without_end_is_stopped(scene: Scene, model: OpenAIFake):
    model.script(Endless("x" * 64_000, seconds=0))

    with pytest.raises(ReplyTooLong):
        await call(scene.host(), "generate", "?")

    await asyncio.wait_for(model.requests[0].closed, 5)
    assert model.requests[0].ended_by == "client"


@pytest.mark.parametrize("name", ["generate", "reflect"])
async def test_who_waits_for_a_model_holds_no_connection_and_leaves_at_once_when_cancelled(
    scene: Scene, model: OpenAIFake, pool: Database, name: str
):
    model.script(Text("x"), Hang())
    asking = asyncio.create_task(call(scene.host(), name, "?"))
    request = await model.request()

    async with asyncio.timeout(5), AsyncExitStack() as held:
        for _ in range(CONNECTIONS):
            await held.enter_async_context(pool.connection())
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(request.closed, 5)
    assert request.ended_by == "client"
