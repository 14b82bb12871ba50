"""A service, a model server that does as it is told, and programs to talk with."""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.integration.terminal.programs import ServiceProgram
from tests.service import local_settings, running_service


@pytest.fixture
async def model() -> AsyncGenerator[OpenAIFake, None]:
    """The model server."""
    async with OpenAIFake() as fake:
        yield fake


@pytest.fixture
async def address(database_url: str, model: OpenAIFake) -> AsyncGenerator[str, None]:
    """Where a service runs that asks `model`."""
    settings = local_settings(
        default_provider="openai",
        openai_base_url=model.url,
        openai_api_key="key",
        openai_default_model="fake-small",
        timeouts={"lease": 1.0, "drain": 1.0},
    )
    async with running_service(settings, database_url) as url:
        yield url


@pytest.fixture
async def program(database_url: str, model: OpenAIFake, tmp_path: Path) -> AsyncGenerator[ServiceProgram, None]:
    """A service in a process of its own, running."""
    settings: Mapping[str, str] = {
        "DEFAULT_PROVIDER": "openai",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "key",
        "OPENAI_DEFAULT_MODEL": "fake-small",
        "TIMEOUTS__LEASE": "1",
        "TIMEOUTS__DRAIN": "2",
    }
    service = ServiceProgram(database_url, tmp_path, settings)
    await service.start()
    try:
        yield service
    finally:
        await service.kill()
