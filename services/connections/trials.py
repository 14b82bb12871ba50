"""Trying connections: whether a model server answers, with which models, and what is wrong if it does not."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from db.ids import UserId
from services.agent.types import ChatMessage, Finish, ModelInfo, ModelRequest
from services.connections.addresses import Gatekeeper
from services.connections.directory import ConnectionDirectory
from services.connections.profile import Profile, make_provider
from services.errors import InvalidRequest, NotFound, ProviderError, ProviderTimeout, TooManyRequests, UnknownProvider
from services.providers.base import Provider, ProviderTimeouts

_KINDS = ("openai", "azure", "ollama")
_QUESTION = "Answer with the one word: ready"


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """How much trying one owner may do."""

    seconds: float = 15
    at_once: int = 3
    per_minute: int = 30


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial went: how many models the server lists, whether the named one answered, what went wrong."""

    ms: int
    models: int | None = None
    answered: bool | None = None
    error: ProviderError | None = None


class ConnectionTrials:
    """Asks model servers a little, for whoever sets a connection up."""

    def __init__(
        self,
        directory: ConnectionDirectory,
        gatekeeper: Gatekeeper,
        timeouts: ProviderTimeouts,
        limits: TrialLimits | None = None,
    ) -> None:
        self._directory = directory
        self._gatekeeper = gatekeeper
        self._timeouts = timeouts
        self._limits = limits or TrialLimits()
        self._busy = Counter[UserId]()
        self._recent: dict[UserId, deque[float]] = {}

    async def test(
        self, owner_id: UserId, reference: str, settings: Mapping[str, Any], *, model: str | None
    ) -> TrialResult:
        """Ask for the list of models, or let `model` answer: what the server does wrong is the result.

        `reference` is a name or an id; or a kind, with the `settings` of a connection that is not saved. Raises
        `NotFound`, `InvalidRequest`, `TooManyRequests`, `AddressNotAllowed` for an address that need not be resolved,
        and what `ConnectionDirectory.get` raises but `UnknownProvider`.
        """
        async with self._room(owner_id), self._provider(owner_id, reference, settings) as provider:
            started = monotonic()
            try:
                async with _timed(self._limits.seconds):
                    if model is not None:
                        answered = await _answers(provider, model)
                        return TrialResult(_ms(started), answered=answered)
                    models = await provider.models()
                    return TrialResult(_ms(started), len(models))
            except ProviderError as error:
                return TrialResult(_ms(started), error=error)

    async def models(self, owner_id: UserId, reference: str, settings: Mapping[str, Any]) -> list[ModelInfo]:
        """The models that the server offers. Raises what `test` raises, and `ProviderError`."""
        async with (
            self._room(owner_id),
            self._provider(owner_id, reference, settings) as provider,
            _timed(self._limits.seconds),
        ):
            return await provider.models()

    @asynccontextmanager
    async def _provider(
        self, owner_id: UserId, reference: str, settings: Mapping[str, Any]
    ) -> AsyncGenerator[Provider, None]:
        if not settings:
            try:
                yield await self._directory.get(owner_id, reference)
            except UnknownProvider as unknown:
                if reference in _KINDS:
                    raise InvalidRequest(f"The service has no {reference} of its own: say where yours is.") from unknown
                raise NotFound("There is no connection of that name or id.") from unknown
            return
        if reference not in _KINDS:
            raise InvalidRequest("A connection is tried as it is saved: to try other settings, name a kind.")
        given = dict(settings)
        key = given.pop("api_key", None)
        profile = Profile(kind=reference, **given).checked(self._gatekeeper.rules)
        provider = make_provider(reference, profile, key, self._gatekeeper, self._timeouts)
        try:
            yield provider
        finally:
            await provider.aclose()

    @asynccontextmanager
    async def _room(self, owner_id: UserId) -> AsyncGenerator[None, None]:
        """A place among the trials of the owner. Raises `TooManyRequests`."""
        limits, now = self._limits, monotonic()
        self._recent = {user: times for user, times in self._recent.items() if times[-1] > now - 60}
        recent = self._recent.setdefault(owner_id, deque(maxlen=limits.per_minute))
        if self._busy[owner_id] >= limits.at_once:
            raise TooManyRequests("Several connections are being tried already.", retry_after=2, limit=limits.at_once)
        if len(recent) == limits.per_minute and recent[0] > now - 60:
            raise TooManyRequests(retry_after=max(1, round(60 - now + recent[0])), limit=limits.per_minute)
        recent.append(now)
        self._busy[owner_id] += 1
        try:
            yield
        finally:
            self._busy -= Counter([owner_id])  # forgets those who have nothing under way


async def _answers(provider: Provider, model: str) -> bool:
    """Whether the model says anything; what it says is of no interest."""
    request = ModelRequest(model, (ChatMessage("user", _QUESTION),))
    async with provider.stream(request) as events, aclosing(events):
        async for event in events:
            if not isinstance(event, Finish):
                return True
    return False


@asynccontextmanager
async def _timed(seconds: float) -> AsyncGenerator[None, None]:
    """Raises `ProviderTimeout` after so long."""
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            yield
    except TimeoutError:
        if not clock.expired():
            raise
        raise ProviderTimeout(f"The model server did not answer within {seconds:g} s.") from None


def _ms(started: float) -> int:
    return round((monotonic() - started) * 1000)
