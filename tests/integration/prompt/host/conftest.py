"""Sessions for scripts to look at, and a model for them to ask."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import asyncpg
import pytest

from db.pool import Database
from services.providers.registry import Providers, ProviderSettings
from tests.fakes.openai_server import OpenAIFake
from tests.integration.prompt.host.scene import Scene

NewScene = Callable[[], Awaitable[Scene]]

CONNECTIONS = 4
"""How many the pool has."""


@pytest.fixture(scope="session")
async def pool(shared_database_url: str) -> AsyncGenerator[Database, None]:
    """The pool that stores are given."""
    pool = await Database.connect(shared_database_url, size=CONNECTIONS)
    yield pool
    await pool.close()


@pytest.fixture
async def providers(model: OpenAIFake) -> AsyncGenerator[Providers, None]:
    """Connections: `openai` and `azure`, which are `model`, and `demo`."""
    settings = ProviderSettings(
        openai_base_url=model.url,
        openai_api_key="sk-test",
        openai_default_model="fake-small",
        azure_endpoint=model.root,
        azure_api_key="azure-test",
        azure_deployment="deployed",
        demo_word_delay=0,
    )
    providers = Providers(settings)
    yield providers
    await providers.aclose()


@pytest.fixture
def new_scene(database: asyncpg.Connection, pool: Database, providers: Providers) -> NewScene:
    """Makes sessions, each of a user of its own."""

    async def make() -> Scene:
        scene = Scene(database, pool, providers)
        await scene.begin()
        return scene

    return make


@pytest.fixture
async def scene(new_scene: NewScene) -> Scene:
    """A session in which nothing was said yet."""
    return await new_scene()
