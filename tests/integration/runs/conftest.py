"""The services without HTTP in front of them, and a model server that does as it is told."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from api.assembly import Services, open_services
from api.settings import Settings
from db.ids import LOCAL_OWNER, SessionId
from services.chat import Attachment
from services.runs.afterwork import Responder
from services.runs.feed import Frame
from tests.fakes.openai_server import OpenAIFake


@pytest.fixture
async def model() -> AsyncGenerator[OpenAIFake, None]:
    """The model server."""
    async with OpenAIFake() as fake:
        yield fake


@asynccontextmanager
async def open_replica(
    database_url: str,
    model: OpenAIFake,
    responder: Responder | None = None,
    *,
    is_alone: bool = False,
    **settings: Any,
) -> AsyncGenerator[Services, None]:
    """One replica of the service; several may share a database, unless it believes to be alone."""
    chosen = Settings.model_validate(
        {
            "openai_base_url": model.url,
            "openai_api_key": "key",
            "openai_default_model": "fake-small",
            "database_url": None if is_alone else database_url,
            "first_run_content": False,
            "titles": {"enabled": False},
            "timeouts": {"lease": 1.0, "drain": 1.0},
            **settings,
        }
    )
    async with AsyncExitStack() as stack:
        yield await open_services(chosen, database_url, stack, responder=responder)


@pytest.fixture
async def services(database_url: str, model: OpenAIFake) -> AsyncGenerator[Services, None]:
    """A replica on a database of its own."""
    async with open_replica(database_url, model) as opened:
        yield opened


@pytest.fixture
async def session_id(services: Services) -> SessionId:
    """An empty session."""
    return (await services.sessions.create(LOCAL_OWNER)).id


async def read_until(attachment: Attachment, type: str, *, count: int = 1) -> list[Frame]:
    """The events that come up to and with the `count`-th one of that type."""
    frames: list[Frame] = []
    while count > 0:
        for frame in await attachment.reader.next():
            frames.append(frame)
            count -= frame.type == type
    return frames
