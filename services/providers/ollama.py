"""Ollama through its native API."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from services.agent.types import ModelEvent, ModelInfo, ModelRequest
from services.errors import ProviderError
from services.providers import ollama_chat
from services.providers.answer import read_answer
from services.providers.attempts import Retries, cannot_mend
from services.providers.base import ProviderKind, ProviderTimeouts
from services.providers.controls import refuse_inexpressible
from services.providers.faults import Complaints
from services.providers.gate import Gate
from services.providers.loose import MOST_MODELS, count, items, mapping, model_name
from services.providers.ollama_chat import OllamaReader
from services.providers.patience import Patience
from services.providers.pictures import has_pictures, without_pictures
from services.providers.thoughts import Thoughts
from services.providers.tools import TOOLS_REFUSED
from services.providers.windows import ContextWindows

if TYPE_CHECKING:
    from services.providers.ollama_sdk import OllamaClient

DEFAULT_HOST = "http://127.0.0.1:11434"
DEFAULT_NUM_CTX = 8192
_LIST_TIMEOUT = 10.0


class OllamaProvider:
    """One connection to an Ollama server.

    Every request says how large a window to set up (`num_ctx`): a server that is left to choose takes a small one
    and forgets the beginning of a chat without a word.
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        *,
        name: str = "ollama",
        api_key: str | None = None,
        default_model: str | None = None,
        num_ctx: int = DEFAULT_NUM_CTX,
        timeouts: ProviderTimeouts | None = None,
        retries: Retries | None = None,
        max_connections: int = 2000,
        gate: Gate | None = None,
    ) -> None:
        self.name = name
        self.kind: ProviderKind = "ollama"
        self.default_model = default_model
        self.controls = ollama_chat.CONTROLS
        self._host = host
        self._api_key = api_key
        self._num_ctx = num_ctx
        self._timeouts = timeouts or ProviderTimeouts()
        self._retries = retries or Retries()
        self._max_connections = max_connections
        self._gate = gate
        self._complaints = Complaints(name, secrets=(api_key or "",))
        self._lengths = ContextWindows(self._ask_length)
        self._blind: set[str] = set()
        """Models that have said that they cannot look at pictures."""
        self._unskilled: set[str] = set()
        """Models that have said that they cannot call tools."""
        self._thoughts = Thoughts()
        self._client: OllamaClient | None = None
        self._opening = asyncio.Lock()

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        """Ask the model; see `Provider.stream`. Raises `InvalidControl` at once for what cannot be expressed."""
        refuse_inexpressible(request.controls, self.controls, self.name)
        body = self._body(request)
        if request.tools or has_pictures(request.messages):
            return aclosing(self._retries.stream(partial(self._attempt_as_able, request), partial(self._mend, request)))
        return aclosing(self._retries.stream(partial(self._attempt, body), cannot_mend))

    async def models(self) -> list[ModelInfo]:
        """The models that are installed, sorted by id."""
        answer = mapping(await self._ask("GET", "/api/tags"))
        entries = [mapping(entry) for entry in items(answer.get("models"))[:MOST_MODELS]]
        ids = {model_name(entry.get("model"), entry.get("name")) for entry in entries}
        return [ModelInfo(id) for id in sorted(ids - {""})]

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        """The smaller of the `num_ctx` that a request with `controls` would send and what `model` was made for."""
        num_ctx = self._num_ctx_of(controls or {})
        return min(num_ctx, await self._lengths.of(model) or num_ctx)

    async def warm(self) -> None:
        """Load the client now, beside the event loop, so that the first message does not wait for it."""
        await self._connected()

    async def aclose(self) -> None:
        """Close the HTTP client."""
        async with self._opening:
            client, self._client = self._client, None
            if client:
                await client.aclose()

    async def _attempt_as_able(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Ollama leaves out without a word what its model cannot see, so the model is told; it refuses tools."""
        await self._lengths.of(request.model)
        if request.model in self._blind:
            request = replace(request, messages=tuple(without_pictures(request.messages)))
        if request.model in self._unskilled:
            request = replace(request, tools=())
        async with aclosing(self._attempt(self._body(request))) as events:
            async for event in events:
                yield event

    def _mend(self, request: ModelRequest, error: ProviderError) -> bool:
        """Learn from a refusal that the model takes no tools; true if it can be asked without them."""
        if request.model in self._unskilled or not request.tools or not TOOLS_REFUSED.search(error.message):
            return False
        self._unskilled.add(request.model)
        return True

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        num_ctx = self._num_ctx_of(request.controls)
        return ollama_chat.request_body(request, num_ctx=num_ctx, connection=self.name, thoughts=self._thoughts)

    async def _attempt(self, body: Mapping[str, Any]) -> AsyncGenerator[ModelEvent, None]:
        client = await self._connected()
        source = client.chat_stream(body)
        reader = OllamaReader(self._complaints, self._thoughts)
        async with aclosing(read_answer(source, reader, self._timeouts, self.name)) as events:
            async for event in events:
                yield event

    def _num_ctx_of(self, controls: Mapping[str, Any]) -> int:
        return controls.get("num_ctx", self._num_ctx)

    async def _ask_length(self, model: str) -> int | None:
        """How much the model was made for: `<architecture>.context_length` of its metadata."""
        shown = mapping(await self._ask("POST", "/api/show", {"model": model}))
        if able := items(shown.get("capabilities")):
            unable = ((self._blind, "vision"), (self._unskilled, "tools"))
            for models, skill in unable:
                if skill not in able:
                    models.add(model)
        info = mapping(shown.get("model_info"))
        lengths = [count(value) for name, value in info.items() if name.endswith(".context_length")]
        return next(filter(None, lengths), None)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> object:
        client = await self._connected()
        with Patience(_LIST_TIMEOUT, "an answer"):
            return await client.ask(method, path, body)

    async def _connected(self) -> "OllamaClient":
        if self._client is None:
            async with self._opening:
                # Importing the package and reading the certificates take half a second of CPU.
                self._client = self._client or await asyncio.to_thread(self._open)
        return self._client

    def _open(self) -> "OllamaClient":
        from services.providers.ollama_sdk import OllamaClient  # noqa: PLC0415 - see `_connected`

        return OllamaClient(
            self._host,
            api_key=self._api_key,
            complaints=self._complaints,
            connect_timeout=self._timeouts.connect,
            max_connections=self._max_connections,
            gate=self._gate,
        )
