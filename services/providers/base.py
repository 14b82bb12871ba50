"""The seam between the agent loop and a model server."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from services.agent.types import ModelEvent, ModelInfo, ModelRequest

ProviderKind = Literal["openai", "ollama", "demo"]


@dataclass(frozen=True, slots=True)
class ProviderTimeouts:
    """Seconds to wait: for a connection, for the first event of an answer, and between two events."""

    connect: float = 10.0
    first_token: float = 120.0
    between_tokens: float = 60.0


class Provider(Protocol):
    """One approved address of a model server, with its long-lived HTTP client."""

    name: str
    """What users call this connection, for example `openai`, `azure` or `ollama`."""
    kind: ProviderKind
    default_model: str | None
    controls: frozenset[str]
    """The names of `providers/controls.py` that this connection can express; `stream` refuses others."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        """Ask the model; leaving the context closes the HTTP stream at once.

        Raises the `ProviderError`s of `services.errors`, on entering or while iterating. The stream ends with
        `Finish`; an answer that stops without one raises `ProviderBrokeOff`. Failed attempts are repeated at
        most twice, and only before the first event.
        """
        ...

    async def models(self) -> list[ModelInfo]:
        """The models that the server offers, sorted by id."""
        ...

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        """Tokens that `model` can take, prompt and reply together; None where nobody knows.

        `controls` as of the request to come: with Ollama, `num_ctx` decides. Asked once and remembered; never raises
        a `ProviderError`, and waits two seconds at most.
        """
        ...

    async def warm(self) -> None:
        """Load the client now, beside the event loop, so that the first message does not wait for it."""
        ...

    async def aclose(self) -> None:
        """Close the HTTP client."""
        ...
