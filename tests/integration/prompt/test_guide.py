"""What the guide to modules shows is what comes out."""

import re
import shlex
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from api.assembly import Services
from api.guide import GUIDE, filled
from db.ids import LOCAL_OWNER, SessionId
from db.records import RunTraceRecord
from services.inbox import Send
from services.personas import PersonaFilter
from services.prompt.triggers import Trigger
from services.scripts.checker import ScriptChecker
from tests.fakes.openai_server import OpenAIFake
from tests.integration.prompt.conftest import Studio
from tests.integration.runs.conftest import open_replica, read_until

TEXT = GUIDE.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """One fenced block: what it is called (`python`, `text`), what it shows, and the text in it."""

    language: str
    kind: str
    options: dict[str, str]
    text: str


def blocks_of(section: str) -> list[Block]:
    """The fenced blocks of a section, in order; every block of the guide says what it shows."""
    found: list[Block] = []
    for language, rest, text in re.findall(r"^```(\w+)(.*)\n((?:.*\n)*?)```$", section, re.MULTILINE):
        words = shlex.split(rest)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        kind = "module" if "module" in options else words[0]
        found.append(Block(language, kind, options, text.removesuffix("\n")))
    return found


SECTIONS = {
    title: blocks
    for title, section in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", TEXT, re.MULTILINE)
    if (blocks := blocks_of(section))
}


@dataclass
class Reader:
    """Does what a section of the guide says, block by block, and compares."""

    studio: Studio
    modules: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    session: SessionId | None = None
    trace: RunTraceRecord | None = None

    async def read(self, blocks: list[Block]) -> None:
        for block in blocks:
            await getattr(self, f"see_{block.kind}")(block)

    async def see_module(self, block: Block) -> None:
        fields = self.modules.setdefault(block.options["module"], {})
        fields["script" if block.language == "python" else "content"] = block.text
        if "trigger" in block.options:
            fields["trigger_pattern"] = block.options["trigger"]
        if "trigger_depth" in block.options:
            fields["trigger_depth"] = int(block.options["trigger_depth"])
        if "context" in block.options:
            fields["execution_context"] = block.options["context"]

    async def see_persona(self, block: Block) -> None:
        self.template = block.text
        self.session = None

    async def see_model(self, block: Block) -> None:
        self.studio.model.reply(block.text)

    async def see_user(self, block: Block) -> None:
        services = self.studio.services
        if self.session is None:
            self.session = await self._begin(services)
        async with services.chat.attach(LOCAL_OWNER, self.session) as attachment:
            await services.chat.send(LOCAL_OWNER, self.session, Send([block.text]))
            frames = await read_until(attachment, "post_response_complete")
        self.trace = await self.studio.trace([frame for frame in frames if frame.run_id])

    async def _begin(self, services: Services) -> SessionId:
        for name, fields in self.modules.items():
            await self.studio.module(name, **fields)
        self.modules = {}
        made, _ = await services.personas.list(LOCAL_OWNER, PersonaFilter(), before=None, limit=100)
        persona = {"name": f"Ada {len(made)}", "template": self.template}
        reviewed = await services.personas.create(LOCAL_OWNER, persona)
        return (await services.sessions.create(LOCAL_OWNER, persona_id=reviewed.persona.id)).id

    async def see_prompt(self, block: Block) -> None:
        assert self.trace is not None
        assert self.trace.prompt == block.text
        assert (self.studio.system_prompt() or "") == block.text

    async def see_trace(self, block: Block) -> None:
        assert self.trace is not None
        entries = orjson.loads(orjson.dumps(self.trace.trace["modules"]))
        shown = [f"{e['module']}: {e['state']}" + (f", {e['why']}" if e["why"] else "") for e in entries]
        assert shown == block.text.splitlines()

    async def see_triggers(self, block: Block) -> None:
        for line in block.text.splitlines():
            found = re.fullmatch(r'(.*?) *\| "(.*)" *\| (speaks|silent)', line)
            assert found, line
            pattern, text, expected = found.groups()
            assert Trigger.compile(pattern).matches(text) == (expected == "speaks"), line


@pytest.fixture
async def services(database_url: str, model: OpenAIFake) -> AsyncGenerator[Services, None]:
    """A replica whose only modules are those of the section."""
    async with open_replica(database_url, model) as opened:
        yield opened


def test_the_guide_has_examples():
    assert len(SECTIONS) >= 8
    kinds = {block.kind for blocks in SECTIONS.values() for block in blocks}
    assert kinds == {"module", "persona", "user", "prompt", "model", "trace", "triggers"}


@pytest.mark.parametrize("title", SECTIONS)
async def test_a_section_shows_what_comes_out(studio: Studio, title: str):
    await Reader(studio).read(SECTIONS[title])


async def test_every_script_of_the_guide_can_be_saved():
    scripts = [block.text for blocks in SECTIONS.values() for block in blocks if block.language == "python"]
    async with ScriptChecker() as checker:
        assert [await checker.check(script) for script in scripts] == [[]] * len(scripts)


def test_the_tables_of_the_guide_are_those_of_the_sources():
    assert filled(TEXT) == TEXT, "run `make guide`"
