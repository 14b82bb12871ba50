"""A new owner finds a persona that shows the idea, once."""

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, SessionId
from services.first_run.content import MODULES
from services.first_run.welcome import complete
from services.inbox import Send
from services.memories import MemoryService
from services.modules import ModuleFilter
from services.personas import PersonaFilter
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake
from tests.integration.prompt.conftest import Studio
from tests.integration.runs.conftest import open_replica, read_until


@pytest.fixture
async def services(database_url: str, model: OpenAIFake) -> AsyncGenerator[Services, None]:
    """A first start."""
    async with open_replica(database_url, model, first_run_content=True) as opened:
        yield opened


async def names_of_personas(services: Services) -> list[str]:
    personas, _ = await services.personas.list(LOCAL_OWNER, PersonaFilter(), before=None, limit=100)
    return [persona.name for persona in personas]


async def begin(services: Services, **fields: str) -> SessionId:
    return (await services.sessions.create(LOCAL_OWNER, **fields)).id


async def say(studio: Studio, session_id: SessionId, words: str) -> list[Frame]:
    """Say something and wait until the modules that run after the reply have run, too."""
    chat = studio.services.chat
    async with chat.attach(LOCAL_OWNER, session_id) as attachment:
        accepted = await chat.send(LOCAL_OWNER, session_id, Send([words]))
        frames = await read_until(attachment, "post_response_complete")
    return [frame for frame in frames if frame.run_id == accepted.run.id]


async def test_the_first_session_of_all_is_answered_by_robin_who_knows_the_time(studio: Studio):
    session = await begin(studio.services)
    trace = await studio.trace(await say(studio, session, "Good morning"))
    assert trace.prompt.startswith("You are Robin: curious, warm and plain-spoken. It is ")
    assert " UTC.\n\nAnswer in a few plain sentences" in trace.prompt
    assert {entry["module"]: entry["state"] for entry in trace.trace["modules"]} == {
        "clock": "spoke",
        "style": "spoke",
        "first_aid": "silent",
        "acquaintance": "silent",
        "gist": "silent",
    }
    assert trace.trace["warnings"] == []


async def test_a_word_of_trouble_makes_first_aid_speak_and_naming_the_haiku_gives_one(studio: Studio):
    session = await begin(studio.services)
    await say(studio, session, "My printer is broken")
    assert "Something does not work for the user." in (studio.system_prompt() or "")
    await say(studio, session, "Explain rain as a @haiku")
    prompt = studio.system_prompt() or ""
    assert "Something does not work" not in prompt
    assert prompt.endswith("Give this answer as a haiku: three lines of five, seven and five syllables.")


async def test_who_tells_a_name_is_known_by_it_from_the_next_turn_on(studio: Studio):
    session = await begin(studio.services)
    await say(studio, session, "Hi there, my name is Ada. Call me later!")
    assert "Ada" not in (studio.system_prompt() or "")
    for replies in (1, 2):
        trace = await studio.trace(await say(studio, session, "What do you know of me?"))
        assert trace.prompt.endswith(
            f"Replies that you have given in this conversation: {replies}.\nThe user's name is Ada."
        )
    assert await memories(studio.services, session) == ["The user's name is Ada."]


async def memories(services: Services, session_id: SessionId) -> list[str]:
    service: MemoryService = services.memories
    found, _ = await service.list(LOCAL_OWNER, session_id, before=None, limit=100)
    return [memory.content for memory in found]


async def test_the_gist_is_asked_of_the_model_after_every_third_reply(studio: Studio):
    session = await begin(studio.services)
    for _ in range(2):
        await say(studio, session, "Let us speak about tea")
    assert len(studio.model.requests) == 2
    studio.model.reply("With pleasure.")
    studio.model.reply("The two are speaking about tea.")
    await say(studio, session, "Green tea")
    assert len(studio.model.requests) == 4
    await say(studio, session, "Go on")
    prompt = studio.system_prompt() or ""
    assert prompt.endswith("What the conversation has been about: The two are speaking about tea.")


async def test_without_a_model_nothing_of_the_demo_gets_into_the_prompt(studio: Studio):
    session = await begin(studio.services, connection="demo")
    for _ in range(3):
        await say(studio, session, "Hello")
    trace = await studio.trace(await say(studio, session, "Hello"))
    assert "Demo" not in trace.prompt
    assert trace.prompt.endswith("Replies that you have given in this conversation: 3.")


async def test_what_was_deleted_does_not_come_back(database_url: str, model: OpenAIFake):
    async with open_replica(database_url, model, first_run_content=True) as services:
        modules, _ = await services.modules.list(LOCAL_OWNER, ModuleFilter(), before=None, limit=100)
        assert {module.name for module in modules} == {fields["name"] for fields in MODULES}
        personas, _ = await services.personas.list(LOCAL_OWNER, PersonaFilter(), before=None, limit=100)
        await services.personas.delete(LOCAL_OWNER, personas[0].id, version=None)
        for module in modules:
            await services.modules.delete(LOCAL_OWNER, module.id, version=None, force=False)
    async with open_replica(database_url, model, first_run_content=True) as services:
        assert await names_of_personas(services) == []
        assert (await services.sessions.create(LOCAL_OWNER)).persona_id is None


@pytest.mark.parametrize("has", ["persona", "module"])
async def test_whoever_has_made_something_is_given_nothing(database_url: str, model: OpenAIFake, has: str):
    async with open_replica(database_url, model) as services:
        made = services.personas if has == "persona" else services.modules
        await made.create(LOCAL_OWNER, {"name": "clock"})
    for _ in range(2):
        async with open_replica(database_url, model, first_run_content=True) as services:
            assert await names_of_personas(services) == (["clock"] if has == "persona" else [])


async def test_what_is_made_is_what_saving_would_make(services: Services):
    assert [complete(fields) for fields in MODULES] == [await services.modules.checked(fields) for fields in MODULES]


async def test_replicas_that_start_together_make_it_once(database_url: str, model: OpenAIFake):
    async def start() -> list[str]:
        async with open_replica(database_url, model, first_run_content=True) as services:
            return await names_of_personas(services)

    assert await asyncio.gather(start(), start(), start()) == [["Robin"]] * 3


async def test_it_is_all_there_or_nothing_is(database_url: str, model: OpenAIFake):
    connection = await asyncpg.connect(database_url)
    await connection.execute("alter table personas add constraint nobody_here check (name <> 'Robin')")
    with pytest.raises(Exception, match="nobody_here"):
        async with open_replica(database_url, model, first_run_content=True):
            pass
    assert await connection.fetchval("select count(*) from modules") == 0
    assert await connection.fetchval("select welcomed_at from users") is None
    await connection.execute("alter table personas drop constraint nobody_here")
    await connection.close()
    async with open_replica(database_url, model, first_run_content=True) as services:
        assert await names_of_personas(services) == ["Robin"]
