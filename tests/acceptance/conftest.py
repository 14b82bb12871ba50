"""A model server in this process, and services in processes of their own."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import pytest

from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service


class StartService(Protocol):
    """Starts a service that is killed at the end of the test, if it still runs."""

    async def __call__(self, database_url: str | None, **settings: object) -> Service:
        """Settings are those of the environment; without a database the service starts one of its own."""
        ...


@pytest.fixture
async def model() -> AsyncGenerator[Narrator, None]:
    """The model server."""
    async with Narrator() as narrator:
        yield narrator


@pytest.fixture
async def start(model: Narrator, tmp_path: Path) -> AsyncGenerator[StartService, None]:
    """See `StartService`."""
    started: list[Service] = []

    async def start(database_url: str | None, **settings: object) -> Service:
        chosen = {
            "DATA_DIR": str(tmp_path / "data"),
            "DEFAULT_PROVIDER": "openai",
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "key",
            "OPENAI_DEFAULT_MODEL": "fake-small",
            "LIMITS__FRAMES_PER_MINUTE": "100000",
            **({"DATABASE_URL": database_url} if database_url else {}),
            **{name: str(value) for name, value in settings.items()},
        }
        service = Service(tmp_path / f"service-{len(started) + 1}", chosen)
        started.append(service)
        await service.ready()
        return service

    yield start
    for service in started:
        service.kill()
