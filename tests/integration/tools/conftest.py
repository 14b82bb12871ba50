"""A service with a tool server that writes down what it does, and a model that insists on legal conversations."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.strict import StrictOpenAIFake
from tests.integration.sockets.client import Client, Socket, client_of
from tests.ledger import Ledger
from tests.service import local_settings, running_service


@pytest.fixture
async def model() -> AsyncGenerator[StrictOpenAIFake, None]:
    """The model server, which must have found every conversation legal."""
    async with StrictOpenAIFake() as fake:
        yield fake
        assert fake.refusals == []


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Where the tool server works."""
    return Ledger(tmp_path / "ledger")


class Bench:
    """A client, and what it needs to start a second service."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def socket(self, **session: Any) -> tuple[str, Socket]:
        """A session and a socket on it."""
        session_id = await self.client.session(forget=False, **session)
        return session_id, await self.client.open(session_id)


@asynccontextmanager
async def service_with(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger, **settings: Any
) -> AsyncGenerator[Bench, None]:
    """A client of a service of its own."""
    chosen = local_settings(
        **{
            "default_provider": "openai",
            "openai_base_url": model.url,
            "openai_api_key": "sk-test",
            "openai_default_model": "fake-small",
            "mcp_config": ledger.config(),
            "timeouts": {"tool_wait": 30, "lease": 1.0},
            **settings,
        }
    )
    async with running_service(chosen, database_url) as base_url, client_of(base_url) as client:
        yield Bench(client)


@pytest.fixture
async def bench(database_url: str, model: StrictOpenAIFake, ledger: Ledger) -> AsyncGenerator[Bench, None]:
    """A service with standard settings."""
    async with service_with(database_url, model, ledger) as bench:
        yield bench
