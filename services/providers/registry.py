"""The operator's connections by name, and which of them is used when nobody says."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from services.errors import ProviderError, UnknownModel, UnknownProvider
from services.providers.base import Provider, ProviderTimeouts
from services.providers.demo import DemoProvider
from services.providers.ollama import DEFAULT_HOST, DEFAULT_NUM_CTX, OllamaProvider
from services.providers.openai import Azure, OpenAIAddress, OpenAIApi, OpenAIProvider

# A connection that costs nothing to try comes last, the one that is no model at the very end.
_ORDER: Final = ("openai", "azure", "ollama", "demo")
_PROBE_TIMEOUT = 0.2
_LONGEST_PROBE_ANSWER = 4096
DEFAULT_AZURE_API_VERSION: Final = "2025-03-01-preview"
# What OpenAI lists first by name is not what anybody wants to talk to.
_OPENAI_CHOICES: Final = ("gpt-5-mini", "gpt-4.1-mini", "gpt-4o-mini")


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What the environment says about model servers; empty means not configured."""

    default_provider: str | None = None
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    openai_default_model: str | None = None
    openai_api: OpenAIApi = "chat_completions"
    azure_endpoint: str | None = None
    azure_api_key: str | None = field(default=None, repr=False)
    azure_api_version: str | None = None
    azure_deployment: str | None = None
    azure_api: OpenAIApi = "chat_completions"
    ollama_host: str | None = None
    ollama_api_key: str | None = field(default=None, repr=False)
    ollama_default_model: str | None = None
    ollama_num_ctx: int = DEFAULT_NUM_CTX
    probe_ollama: bool = True
    """Whether to look for an Ollama at its usual address when no host is given."""
    probe_address: tuple[str, int] = ("127.0.0.1", 11434)
    demo_word_delay: float = 0.015
    timeouts: ProviderTimeouts = field(default_factory=ProviderTimeouts)


class Providers:
    """Every connection of the operator, made when it is first asked for and shared by all sessions."""

    def __init__(self, settings: ProviderSettings) -> None:
        """Raises `UnknownProvider` if the configured default is not configured itself."""
        self._settings = settings
        self._makers = _makers(settings)
        self._made: dict[str, Provider] = {}
        self._found_models: WeakKeyDictionary[Provider, str] = WeakKeyDictionary()
        # By the connection itself: two owners may call theirs the same.
        if settings.default_provider and settings.default_provider not in self._makers:
            raise self._unknown(settings.default_provider)

    @property
    def names(self) -> list[str]:
        """The connections that exist, in order of preference; `demo` always does."""
        return [name for name in _ORDER if name in self._makers]

    @property
    def default(self) -> str:
        """The connection for everybody who names none: the configured one, else the first that exists."""
        return self._settings.default_provider or self.names[0]

    def get(self, name: str | None = None) -> Provider:
        """The connection called `name`, or the default. `UnknownProvider` tells the names that exist."""
        name = name or self.default
        if name not in self._made:
            if name not in self._makers:
                raise self._unknown(name)
            self._made[name] = self._makers[name]()
        return self._made[name]

    def has_made(self, provider: Provider) -> bool:
        """Whether it is one of the operator's."""
        return any(made is provider for made in self._made.values())

    async def model_for(self, provider: Provider, wanted: str | None = None) -> str:
        """The model to ask: `wanted`, else the connection's own default, else the first that it offers.

        Raises `UnknownModel` where nothing is left to choose from, and what `provider.models()` raises.
        """
        model = wanted or provider.default_model or self._found_models.get(provider)
        if model:
            return model
        offered = [info.id for info in await provider.models()]
        if not offered:
            raise UnknownModel(f"The connection {provider.name} offers no models; name one.", provider=provider.name)
        model = next((choice for choice in _OPENAI_CHOICES if choice in offered), offered[0])
        self._found_models[provider] = model
        return model

    async def look_for_ollama(self) -> None:
        """Find an Ollama at its usual address, unless one is configured. Takes a fifth of a second at most."""
        settings = self._settings
        if "ollama" not in self._makers and settings.probe_ollama and await is_ollama(*settings.probe_address):
            host, port = settings.probe_address
            self._makers["ollama"] = _ollama_maker(settings, f"http://{host}:{port}")

    async def warm(self) -> None:
        """Load the default connection's client and find its model, so that the first message need not wait for it."""
        provider = self.get()
        await provider.warm()
        if provider.default_model is None:
            try:
                await self.model_for(provider)
            except ProviderError:
                # It may come up later; whoever sends a message will be told.
                return

    async def aclose(self) -> None:
        """Close all clients."""
        made, self._made = list(self._made.values()), {}
        await asyncio.gather(*(provider.aclose() for provider in made))

    def _unknown(self, name: str) -> UnknownProvider:
        known = self.names
        return UnknownProvider(f"There is no connection {name[:60]}. Known are: {', '.join(known)}.", known=known)


async def is_ollama(host: str, port: int, *, timeout: float = _PROBE_TIMEOUT) -> bool:
    """Whether an Ollama server answers there within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /api/version HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
                answer = b""
                while len(answer) < _LONGEST_PROBE_ANSWER and (more := await reader.read(_LONGEST_PROBE_ANSWER)):
                    answer += more
            finally:
                writer.close()
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.") and b" 200 " in answer[:16] and b'"version"' in answer


def _makers(settings: ProviderSettings) -> dict[str, Callable[[], Provider]]:
    makers: dict[str, Callable[[], Provider]] = {
        "demo": lambda: DemoProvider(word_delay=settings.demo_word_delay),
    }
    if settings.openai_api_key or settings.openai_base_url:
        makers["openai"] = lambda: OpenAIProvider(
            OpenAIAddress(settings.openai_api_key, settings.openai_base_url),
            api=settings.openai_api,
            default_model=settings.openai_default_model,
            timeouts=settings.timeouts,
        )
    if settings.azure_endpoint:
        azure = Azure(settings.azure_endpoint, settings.azure_api_version or DEFAULT_AZURE_API_VERSION)
        makers["azure"] = lambda: OpenAIProvider(
            OpenAIAddress(settings.azure_api_key, azure=azure),
            name="azure",
            api=settings.azure_api,
            default_model=settings.azure_deployment,
            timeouts=settings.timeouts,
        )
    if settings.ollama_host or settings.default_provider == "ollama":
        makers["ollama"] = _ollama_maker(settings, settings.ollama_host or DEFAULT_HOST)
    return makers


def _ollama_maker(settings: ProviderSettings, host: str) -> Callable[[], Provider]:
    return lambda: OllamaProvider(
        host,
        api_key=settings.ollama_api_key,
        default_model=settings.ollama_default_model,
        num_ctx=settings.ollama_num_ctx,
        timeouts=settings.timeouts,
    )
