"""A running turn with modules, over the real stores, the real sandbox and a model server that does as it is told."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from api.assembly import Services
from db.ids import LOCAL_OWNER, ModuleId, PersonaId, RunId, SessionId, new_id
from db.pool import Database
from db.records import ModuleRecord, RunTraceRecord
from db.stores.modules import ModuleStore
from db.stores.personas import PersonaStore
from db.stores.run_traces import RunTraceStore
from services.inbox import Send
from services.prompt.template import parse
from services.runs.feed import Frame
from services.scripts.analysis import analyse
from tests.fakes.openai_server import OpenAIFake
from tests.integration.runs.conftest import open_replica, read_until


@pytest.fixture
async def model() -> AsyncGenerator[OpenAIFake, None]:
    """The model server."""
    async with OpenAIFake() as fake:
        yield fake


@pytest.fixture
async def services(database_url: str, model: OpenAIFake) -> AsyncGenerator[Services, None]:
    """A replica on a database of its own."""
    async with open_replica(database_url, model) as opened:
        yield opened


class Studio:
    """Makes personas and modules, and has conversations with them."""

    def __init__(self, database: Database, services: Services, model: OpenAIFake) -> None:
        self.services = services
        self.model = model
        self._database = database
        self._modules = ModuleStore(database)
        self._personas = PersonaStore(database)
        self._traces = RunTraceStore(database)

    async def module(self, name: str, **fields: Any) -> ModuleRecord:
        """Store a module as saving one would."""
        script = fields.get("script", "")
        analysis = analyse(script)
        computed = {
            "type": "advanced" if script else "simple",
            "refers_to": list(parse(fields.get("content", "")).references),
            "requires_ai": bool(script) and analysis.requires_ai,
            "analysis": {"references": list(analysis.references)} if script else None,
            "timeout_ms": 30_000,  # a slow machine is not what is tested
        }
        return await self._modules.create(ModuleId(new_id()), LOCAL_OWNER, {"name": name, **computed, **fields})

    async def session(self, template: str, **fields: Any) -> SessionId:
        """A session with a persona of that template."""
        persona = await self._personas.create(
            PersonaId(new_id()),
            LOCAL_OWNER,
            {"name": f"Persona {new_id()}", "slug": str(new_id()), "template": template, **fields},
        )
        return (await self.services.sessions.create(LOCAL_OWNER, persona_id=persona.id)).id

    async def say(self, session_id: SessionId, words: str) -> list[Frame]:
        """Say something and wait for the whole run."""
        chat = self.services.chat
        async with chat.attach(LOCAL_OWNER, session_id) as attachment:
            accepted = await chat.send(LOCAL_OWNER, session_id, Send([words], when_busy="queue"))
            frames = await read_until(attachment, "assistant_end")
        return [frame for frame in frames if frame.run_id == accepted.run.id]

    def system_prompt(self, request: int = -1) -> str | None:
        """What the model server was given as the system prompt."""
        messages = self.model.requests[request].body["messages"]
        return messages[0]["content"] if messages[0]["role"] == "system" else None

    async def look(self, query: str) -> list[Any]:
        """The first column of what the database answers."""
        async with self._database.connection() as connection:
            return [row[0] for row in await connection.fetch(query)]

    async def trace(self, frames: list[Frame]) -> RunTraceRecord:
        """The stored trace of the run that these events are of."""
        run_id = frames[0].run_id
        assert run_id is not None
        trace = await self._traces.get(RunId(run_id), LOCAL_OWNER)
        assert trace is not None
        return trace


@pytest.fixture
async def studio(database_url: str, services: Services, model: OpenAIFake) -> AsyncGenerator[Studio, None]:
    """Personas, modules and conversations."""
    database = await Database.connect(database_url, size=2)
    yield Studio(database, services, model)
    await database.close()


@asynccontextmanager
async def studio_with(database_url: str, model: OpenAIFake, **settings: Any) -> AsyncGenerator[Studio, None]:
    """The same on a replica with these settings."""
    async with open_replica(database_url, model, **settings) as services:
        database = await Database.connect(database_url, size=2)
        try:
            yield Studio(database, services, model)
        finally:
            await database.close()


def events(frames: list[Frame], type: str) -> list[dict[str, Any]]:
    """The events of one type."""
    return [orjson.loads(frame.text) for frame in frames if frame.type == type]
