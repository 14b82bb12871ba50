"""Every provider with a real server behind it, so that one suite can ask all of them the same."""

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from services.agent.types import ChatMessage, ModelEvent, ModelRequest, TextDelta, ThinkingDelta
from services.providers.attempts import Retries
from services.providers.base import Provider
from services.providers.ollama import OllamaProvider
from services.providers.openai import Azure, OpenAIAddress, OpenAIProvider
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.server import FakeServer

AT_ONCE = Retries(first_delay=0.001)


@dataclass
class Peer:
    """A fake server, and how to make a provider that talks to it."""

    kind: str
    fake: FakeServer
    make: Callable[..., Provider]
    providers: list[Provider]

    def provider(self, **options: Any) -> Provider:
        """A provider that retries without waiting; closed after the test."""
        self.providers.append(self.make(**{"retries": AT_ONCE, **options}))
        return self.providers[-1]


def _openai(fake: OpenAIFake, address: str = "", **options: Any) -> Provider:
    return OpenAIProvider(OpenAIAddress("sk-secret-key", address or fake.url), **options)


def _responses(fake: OpenAIFake, address: str = "", **options: Any) -> Provider:
    return OpenAIProvider(OpenAIAddress("sk-secret-key", address or fake.url), api="responses", **options)


def _azure(fake: OpenAIFake, address: str = "", **options: Any) -> Provider:
    azure = Azure(address or fake.root, "2025-03-01-preview")
    return OpenAIProvider(OpenAIAddress("sk-secret-key", azure=azure), name="azure", **options)


def _ollama(fake: OllamaFake, address: str = "", **options: Any) -> Provider:
    return OllamaProvider(address or fake.url, **{"api_key": "sk-secret-key", **options})


@contextmanager
def full_backlog() -> Generator[str, None, None]:
    """An address at which a server listens but accepts nobody any more: connecting hangs."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield f"http://{host}:{port}"


_KINDS: dict[str, tuple[type[FakeServer], Callable[..., Provider]]] = {
    "openai-chat": (OpenAIFake, _openai),
    "openai-responses": (OpenAIFake, _responses),
    "azure": (OpenAIFake, _azure),
    "ollama": (OllamaFake, _ollama),
}


@asynccontextmanager
async def running(kind: str) -> AsyncGenerator[Peer, None]:
    """The peer of that kind, started."""
    make_fake, make = _KINDS[kind]
    async with make_fake() as fake:
        peer = Peer(kind, fake, lambda **options: make(fake, **options), [])
        try:
            yield peer
        finally:
            for provider in peer.providers:
                await provider.aclose()


@pytest.fixture(params=list(_KINDS))
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    """Each kind of server in turn."""
    async with running(request.param) as peer:
        yield peer


@pytest.fixture
async def chat() -> AsyncIterator[Peer]:
    """A server that speaks Chat Completions."""
    async with running("openai-chat") as peer:
        yield peer


@pytest.fixture
async def responses() -> AsyncIterator[Peer]:
    """A server that speaks Responses."""
    async with running("openai-responses") as peer:
        yield peer


@pytest.fixture
async def ollama() -> AsyncIterator[Peer]:
    """An Ollama server."""
    async with running("ollama") as peer:
        yield peer


def ask(text: str = "hi", *, model: str = "fake-small", **fields: Any) -> ModelRequest:
    """A request with one message of the user."""
    return ModelRequest(model, (ChatMessage("user", text),), **fields)


async def answer(provider: Provider, request: ModelRequest | None = None) -> list[ModelEvent]:
    """All events of one answer."""
    seen: list[ModelEvent] = []
    await watch(provider, seen, request)
    return seen


async def watch(provider: Provider, seen: list[ModelEvent], request: ModelRequest | None = None) -> None:
    """Put the events of one answer into `seen` as they come."""
    async with provider.stream(request or ask()) as events:
        async for event in events:
            seen.append(event)  # noqa: PERF401 - what came before an error counts


def joined(events: list[ModelEvent], kind: type[TextDelta | ThinkingDelta] = TextDelta) -> str:
    """The text of all deltas of a kind."""
    return "".join(event.text for event in events if isinstance(event, kind))
