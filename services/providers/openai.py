"""OpenAI, Azure OpenAI, and every server that speaks one of their protocols."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never
from urllib.parse import urlsplit

from services.agent.types import ModelEvent, ModelInfo, ModelRequest
from services.errors import ProviderError, ProviderRejected
from services.providers.answer import read_answer
from services.providers.attempts import Retries
from services.providers.base import ProviderKind, ProviderTimeouts
from services.providers.chat_completions import ChatCompletions
from services.providers.controls import refuse_inexpressible
from services.providers.faults import Complaints
from services.providers.gate import Gate
from services.providers.loose import MOST_MODELS, items, mapping, model_name
from services.providers.patience import Patience
from services.providers.pictures import has_pictures
from services.providers.responses import Responses
from services.providers.windows import ContextWindows, openai_window, window_in

if TYPE_CHECKING:
    from services.providers.openai_sdk import OpenAIClient

OpenAIApi = Literal["chat_completions", "responses"]

OPENAI_HOST = "api.openai.com"
_LIST_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Azure:
    """An Azure OpenAI resource; the model of a request is the name of a deployment there."""

    endpoint: str
    api_version: str


@dataclass(frozen=True, slots=True)
class OpenAIAddress:
    """Where a connection leads. Without `azure` and `base_url` it is OpenAI itself."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    azure: Azure | None = None

    @property
    def is_openais_own(self) -> bool:
        """Whether OpenAI's models are behind it, which refuse fields that they do not know."""
        return bool(self.azure) or self.base_url is None or urlsplit(self.base_url).hostname == OPENAI_HOST


class OpenAIProvider:
    """One connection to a server that speaks Chat Completions or Responses."""

    def __init__(
        self,
        address: OpenAIAddress,
        *,
        name: str = "openai",
        api: OpenAIApi = "chat_completions",
        default_model: str | None = None,
        timeouts: ProviderTimeouts | None = None,
        retries: Retries | None = None,
        max_connections: int = 2000,
        gate: Gate | None = None,
    ) -> None:
        self.name = name
        self.kind: ProviderKind = "openai"
        self.default_model = default_model
        self._address = address
        self._dialect = _dialect(api, address)
        self.controls = self._dialect.controls
        self._timeouts = timeouts or ProviderTimeouts()
        self._retries = retries or Retries()
        self._max_connections = max_connections
        self._gate = gate
        self._complaints = Complaints(name, secrets=(address.api_key or "",))
        self._windows = ContextWindows(self._ask_window)
        self._refused: defaultdict[str, set[str]] = defaultdict(set)
        self._client: OpenAIClient | None = None
        self._opening = asyncio.Lock()

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        """Ask the model; see `Provider.stream`. Raises `InvalidControl` at once for what cannot be expressed."""
        refuse_inexpressible(request.controls, self.controls, self.name)
        return aclosing(self._retries.stream(partial(self._attempt, request), partial(self._mend, request)))

    async def models(self) -> list[ModelInfo]:
        """The models that the server lists, sorted by id."""
        client = await self._connected()
        with Patience(_LIST_TIMEOUT, "its list of models"):
            answer = await client.get("/models")
        entries = [mapping(entry) for entry in items(mapping(answer).get("data"))[:MOST_MODELS]]
        found = {id: window_in(entry) or openai_window(id) for entry in entries if (id := model_name(entry.get("id")))}
        return [ModelInfo(id, found[id]) for id in sorted(found)]

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        """Tokens that `model` can take; asked once, then remembered. No control changes it."""
        return await self._windows.of(model)

    async def warm(self) -> None:
        """Load the client now, beside the event loop, so that the first message does not wait for it."""
        await self._connected()

    async def aclose(self) -> None:
        """Close the HTTP client."""
        async with self._opening:
            client, self._client = self._client, None
            if client:
                await client.aclose()

    async def _attempt(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        client = await self._connected()
        body = self._dialect.body(request, self._refused[request.model])
        source = client.stream(self._dialect.path, body)
        async with aclosing(
            read_answer(source, self._dialect.reader(self._complaints), self._timeouts, self.name)
        ) as events:
            async for event in events:
                yield event

    def _mend(self, request: ModelRequest, error: ProviderError) -> bool:
        """Learn from a refusal which nicety this model does not want; true if it can be asked without it."""
        refused = self._refused[request.model]
        unwanted = {name for name, words in self._dialect.niceties.items() if words.search(error.message)} - refused
        if not has_pictures(request.messages):
            unwanted.discard("pictures")
        # Some servers fail over a picture instead of refusing it.
        if not unwanted or not (isinstance(error, ProviderRejected) or "pictures" in unwanted):
            return False
        refused |= unwanted
        return True

    async def _ask_window(self, model: str) -> int | None:
        if self._address.is_openais_own:
            return openai_window(model)
        listed = {info.id: info.context_window for info in await self.models()}
        return listed.get(model) or openai_window(model)

    async def _connected(self) -> "OpenAIClient":
        if self._client is None:
            async with self._opening:
                # Importing the package and reading the certificates take a second of CPU.
                self._client = self._client or await asyncio.to_thread(self._open)
        return self._client

    def _open(self) -> "OpenAIClient":
        from services.providers.openai_sdk import OpenAIClient  # noqa: PLC0415 - see `_connected`

        return OpenAIClient(
            self._address,
            complaints=self._complaints,
            connect_timeout=self._timeouts.connect,
            max_connections=self._max_connections,
            gate=self._gate,
        )


def _dialect(api: OpenAIApi, address: OpenAIAddress) -> ChatCompletions | Responses:
    match api:
        case "chat_completions":
            return ChatCompletions(own=address.is_openais_own)
        case "responses":
            return Responses()
        case _:
            assert_never(api)
