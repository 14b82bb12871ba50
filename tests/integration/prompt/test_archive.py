"""The prompt of a run that is over is made again as it was, or it is said what has changed since."""

import pytest

from db.ids import LOCAL_OWNER, RunId
from services.errors import NotFound
from services.prompt.archive import Change, Rendering
from tests.integration.prompt.conftest import Studio


async def render(studio: Studio, session, frames) -> Rendering:
    return await studio.services.archive.render(LOCAL_OWNER, session, RunId(frames[0].run_id))


async def test_an_unchanged_prompt_is_made_again_byte_for_byte_whatever_was_said_since(studio: Studio):
    count = 'n = ctx.get_variable("n", 0) + 1\nctx.set_variable("n", n)\nctx.set_output("n", n)\nctx.set_output("x", 1)'
    await studio.module("style", content="Be brief, é 🙂. ${now} @nobody @counter")
    await studio.module("counter", script=count, content="Turn ${n} of ${persona.name} ${missing}.")
    await studio.module("plain", script='ctx.set_output("t", "@style ${now}")')
    await studio.module("fragile", script='if ctx.get_message_count() > 1:\n    1 / 0\nctx.set_output("t", "good")')
    await studio.module("later", script='ctx.set_output("t", ctx.get_ai_response())', execution_context="POST_RESPONSE")
    await studio.module("rain", content="It rains.", trigger_pattern="rain")
    await studio.module("recipe", content="Cook.", execution_context="ON_DEMAND")
    session = await studio.session("@style ${counter.n}${counter.gone} [@plain] <@fragile> @later @rain \\@x")

    runs, prompts = [], []
    for words in ("Hi", "Rain, @recipe", "Bye"):
        studio.model.reply(f"Answer to {words}")
        runs.append(await studio.say(session, words))
        prompts.append(studio.system_prompt())

    assert len(set(prompts)) == 3
    for frames, prompt in zip(runs, prompts, strict=True):
        assert await render(studio, session, frames) == Rendering(prompt, is_same=True, changed=())


async def test_what_has_changed_is_named_with_its_versions(studio: Studio):
    style = await studio.module("style", content="Be brief.")
    gone = await studio.module("gone", content="Gone soon.")
    session = await studio.session("@style @gone @nobody")
    frames = await studio.say(session, "Hi")
    modules = studio.services.modules
    await modules.update(LOCAL_OWNER, style.id, {"content": "Be long."}, version=None)
    await modules.delete(LOCAL_OWNER, gone.id, version=None, force=True)
    await studio.module("nobody", content="I am here.")

    rendering = await render(studio, session, frames)

    assert rendering == Rendering(
        "Be long. @gone @nobody",
        is_same=False,
        changed=(
            Change("module", "style", 1, 2),
            Change("module", "gone", 1, None),
            Change("module", "nobody", None, 1),
        ),
    )


async def test_a_changed_persona_is_named_and_one_that_is_gone_leaves_no_prompt(studio: Studio):
    session = await studio.session("First.")
    frames = await studio.say(session, "Hi")
    persona_id = (await studio.services.sessions.get(LOCAL_OWNER, session)).persona_id
    assert persona_id is not None
    personas = studio.services.personas

    persona = (await personas.update(LOCAL_OWNER, persona_id, {"template": "Second."}, version=None)).persona
    changed = await render(studio, session, frames)
    await personas.delete(LOCAL_OWNER, persona_id, version=None)
    gone = await render(studio, session, frames)

    assert changed == Rendering("Second.", is_same=False, changed=(Change("persona", persona.name, 1, 2),))
    assert gone == Rendering(None, is_same=False, changed=(Change("persona", persona.name, 1, None),))


async def test_a_run_without_a_persona_has_no_prompt(studio: Studio):
    session = (await studio.services.sessions.create(LOCAL_OWNER)).id
    frames = await studio.say(session, "Hi")
    with pytest.raises(NotFound, match="no prompt"):
        await render(studio, session, frames)


async def test_run_tells_which_module_broke_what_its_provider_knew_of_the_prompt(studio: Studio):
    await studio.module(
        "counter", script='n = ctx.get_variable("n", 0) + 1\nctx.set_variable("n", n)\nctx.set_output("n", n)'
    )
    await studio.module("style", content="Be brief.")
    session = await studio.session("@style Turn ${counter.n}. <@counter>")
    frames = [await studio.say(session, words) for words in ("Hi", "Ho", "Hu")]
    ids = [run[0].run_id for run in frames]
    found = [await studio.services.archive.run(LOCAL_OWNER, session, RunId(id)) for id in ids if id]

    assert found[0][2] is None
    _, stored, prefix = found[2]
    assert stored
    assert prefix
    assert stored.prompt.startswith("Be brief. Turn ")
    assert prefix.characters == len("Be brief. Turn ")
    assert not prefix.is_whole
    assert [entry["at"] for entry in stored.trace["modules"] if entry["module"] == "style"] == [0]
