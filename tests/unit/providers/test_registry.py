"""Connections by name, and a first one that always exists."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from services.errors import UnknownModel, UnknownProvider
from services.providers.registry import Providers, ProviderSettings, is_ollama
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.openai_server import OpenAIFake
from tests.unit.providers.conftest import answer, ask, joined


@pytest.fixture
async def local_ollama() -> AsyncIterator[OllamaFake]:
    async with OllamaFake() as fake:
        yield fake


def address(fake: OllamaFake | OpenAIFake) -> tuple[str, int]:
    host, port = fake.root.removeprefix("http://").split(":")
    return host, int(port)


def test_the_demo_is_always_there_and_the_default_when_alone() -> None:
    providers = Providers(ProviderSettings(probe_ollama=False))
    assert providers.names == ["demo"]
    assert providers.get().kind == "demo"


def test_the_first_configured_connection_is_the_default() -> None:
    everything = ProviderSettings(
        openai_api_key="k", azure_endpoint="https://x", azure_api_key="k", ollama_host="http://127.0.0.1:1"
    )
    assert Providers(everything).names == ["openai", "azure", "ollama", "demo"]
    assert Providers(everything).default == "openai"


def test_the_configured_default_goes_first() -> None:
    assert Providers(ProviderSettings(openai_api_key="k", default_provider="demo")).get().name == "demo"


def test_a_default_that_is_not_configured_is_a_mistake_told_at_once() -> None:
    with pytest.raises(UnknownProvider, match="azure"):
        Providers(ProviderSettings(default_provider="azure"))


def test_an_unknown_name_is_answered_by_the_known_ones() -> None:
    with pytest.raises(UnknownProvider, match="demo") as caught:
        Providers(ProviderSettings()).get("nope")
    assert caught.value.details["known"] == ["demo"]


def test_a_connection_is_made_once_and_shared() -> None:
    providers = Providers(ProviderSettings(openai_api_key="k"))
    assert providers.get("openai") is providers.get()


async def test_a_local_ollama_is_found_by_itself(local_ollama: OllamaFake) -> None:
    providers = Providers(ProviderSettings(probe_address=address(local_ollama)))
    assert providers.default == "demo"
    await providers.look_for_ollama()
    assert providers.default == "ollama"
    provider = providers.get()
    model = await providers.model_for(provider)
    assert model == "fake-small"
    assert joined(await answer(provider, ask(model=model))) == "Hello there."
    await providers.aclose()


async def test_something_else_at_ollamas_address_is_not_taken_for_it() -> None:
    async with OpenAIFake() as fake:
        assert not await is_ollama(*address(fake))


async def test_looking_for_ollama_takes_no_longer_than_it_may() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    connections: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        started = time.monotonic()
        assert not await is_ollama(*server.sockets[0].getsockname()[:2])
        assert time.monotonic() - started < 1
        for writer in connections:
            writer.close()


async def test_the_model_is_the_wanted_one_else_the_default_else_the_first_offered() -> None:
    async with OpenAIFake() as fake:
        fake.models = [{"id": "b"}, {"id": "a"}]
        providers = Providers(ProviderSettings(openai_base_url=fake.url))
        provider = providers.get()
        assert await providers.model_for(provider, "wanted") == "wanted"
        assert [await providers.model_for(provider) for _ in range(2)] == ["a", "a"]
        assert len(fake.lookups) == 1
        provider.default_model = "set"
        assert await providers.model_for(provider) == "set"
        await providers.aclose()


async def test_a_server_without_models_is_told_so() -> None:
    async with OpenAIFake() as fake:
        fake.models = []
        providers = Providers(ProviderSettings(openai_base_url=fake.url))
        with pytest.raises(UnknownModel, match="offers no models"):
            await providers.model_for(providers.get())
        await providers.aclose()


async def test_discovery_survives_a_default_server_that_is_down() -> None:
    providers = Providers(ProviderSettings(openai_base_url="http://127.0.0.1:9/v1", probe_ollama=False))
    await providers.warm()
    await providers.aclose()


def test_keys_are_not_in_the_representation_of_settings() -> None:
    settings = ProviderSettings(openai_api_key="sk-1", azure_api_key="sk-2", ollama_api_key="sk-3")
    assert "sk-" not in repr(settings)


def test_making_connections_loads_no_client_yet() -> None:
    program = (
        "import sys; from services.providers.registry import *;"
        "p = Providers(ProviderSettings(openai_api_key='k', ollama_host='x'));"
        "p.get('openai'); p.get('ollama'); p.get('demo');"
        "print([m for m in ('openai', 'ollama', 'httpx', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
