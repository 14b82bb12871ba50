"""What trying out may take, and that what is tried is what a turn would do."""

import asyncio

import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, UserId, new_id
from services.errors import RunTimedOut, ShuttingDown, TooManyRequests
from services.prompt.lab import LabLimits, PromptLab, Scene
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang
from tests.integration.prompt.conftest import Studio

ASKS = 'ctx.set_output("t", ctx.generate("Wait for it:"))'
HERE = Scene(LOCAL_OWNER)


@pytest.fixture
def lab(services: Services) -> PromptLab:
    """The lab of the replica."""
    return services.lab


async def resolve(lab: PromptLab, template: str, scene: Scene) -> str:
    return (await lab.resolve(template, scene, run_scripts=True, run_ai=True)).text


async def test_what_is_resolved_is_what_the_model_is_told(studio: Studio, lab: PromptLab):
    await studio.module("base", content="Base of ${persona.name}.", trigger_pattern="hello")
    await studio.module("count", script='ctx.set_output("n", ctx.get_variable("n", 0) + 1)', content="Turn ${n}.")
    await studio.module("mood", script='ctx.set_output("m", ctx.reflect("The mood?"))')
    template = "@base @count @mood"
    session = await studio.session(template)
    persona = (await studio.services.sessions.get(LOCAL_OWNER, session)).persona_id
    for _ in range(2):
        studio.model.reply("calm")

    tried = await resolve(lab, template, Scene(LOCAL_OWNER, persona, session, "Hello"))
    asked = [message["content"] for message in studio.model.requests[0].body["messages"]]
    await studio.say(session, "Hello")

    assert tried == studio.system_prompt()
    assert asked == [message["content"] for message in studio.model.requests[1].body["messages"]]


async def test_a_model_that_never_answers_is_left_when_the_time_is_over(
    studio: Studio, services: Services, model: OpenAIFake
):
    await studio.module("asks", script=ASKS)
    lab = services.lab.limited(LabLimits(seconds=0.5))
    model.script(Hang())

    with pytest.raises(RunTimedOut, match=r"longer than 0\.5 s"):
        await resolve(lab, "@asks", HERE)

    async with asyncio.timeout(5):
        await (await model.request()).closed
    assert await resolve(lab, "free again", HERE) == "free again"


async def test_an_owner_tries_only_so_much_at_once_and_hinders_nobody(lab: PromptLab, model: OpenAIFake):
    for _ in range(4):
        model.script(Hang())
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(lab.try_script(ASKS, "", HERE, run_ai=True)) for _ in range(4)]
        await model.request(3)

        with pytest.raises(TooManyRequests):
            await resolve(lab, "one more", HERE)
        assert await resolve(lab, "another's", Scene(UserId(new_id()))) == "another's"

        for task in waiting:
            task.cancel()
    for request in model.requests:
        async with asyncio.timeout(5):
            await request.closed
    assert await resolve(lab, "free again", HERE) == "free again"


async def test_a_script_may_refer_to_a_module_that_has_the_name_of_the_tried_one(studio: Studio, lab: PromptLab):
    await studio.module("tried", content="stored")

    tried = await lab.try_script('ctx.set_output("t", ctx.run_module("tried"))', "@tried ${t}", HERE, run_ai=False)

    assert tried.content == "stored stored"


async def test_what_runs_after_replies_says_what_it_said_last(studio: Studio, lab: PromptLab):
    await studio.module("later", script='ctx.set_output("t", "x")', execution_context="POST_RESPONSE")

    resolved = await lab.resolve("[@later]", HERE, run_scripts=False, run_ai=False)

    assert resolved.text == "[]"
    assert resolved.trace["modules"][0]["why"] == "it runs after replies, and has not run yet"


async def test_what_is_being_tried_ends_when_the_service_does(studio: Studio, lab: PromptLab, model: OpenAIFake):
    await studio.module("asks", script=ASKS)
    model.script(Hang())
    trying = asyncio.ensure_future(resolve(lab, "@asks", HERE))
    request = await model.request()

    lab.shut_down()

    with pytest.raises(ShuttingDown):
        await trying
    async with asyncio.timeout(5):
        await request.closed
    with pytest.raises(ShuttingDown):
        await resolve(lab, "nothing more", HERE)


async def test_a_script_that_computes_too_long_is_told_the_statement(studio: Studio, lab: PromptLab):
    script = 'n = ctx.get_variable("n", 1)\nwhile n:\n    m = n\n    # round and round\n    n = m + 1'
    tried = await lab.try_script(script, "", HERE, run_ai=False)
    error = tried.result.error
    assert error is not None
    assert error.line in (3, 5)
    assert error.message.endswith("run once more, it did so in this line")

    await studio.module("spin", script=script)
    trace = await studio.trace(await studio.say(await studio.session("@spin"), "Hi"))
    assert trace.trace["modules"][0]["error"]["line"] == 1, "in a turn nothing is run twice"
