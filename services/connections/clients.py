"""Clients of saved connections: long-lived, few, and closed when nobody has needed them for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from time import monotonic
from typing import Any

from db.ids import ConnectionId, UserId
from db.records import ConnectionRecord
from services.agent.types import ModelEvent, ModelInfo, ModelRequest
from services.providers.base import Provider, ProviderKind

_Key = tuple[UserId, ConnectionId]


class SharedClient:
    """A provider that several runs use at once and that can be given up while they do.

    Whoever has it may go on with it: it is closed when nobody uses it, and opens again if somebody comes back.
    """

    def __init__(self, inner: Provider, given_up: Callable[["SharedClient"], None]) -> None:
        """`given_up` is told when it has been given up and nobody uses it (any more)."""
        self.name = inner.name
        self.kind: ProviderKind = inner.kind
        self.default_model = inner.default_model
        self.controls = inner.controls
        self.users = 0
        self.last_used = monotonic()
        self._inner = inner
        self._given_up = given_up
        self._is_given_up = False

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        """Ask the model; see `Provider.stream`."""
        return self._streaming(self._inner.stream(request))

    async def models(self) -> list[ModelInfo]:
        """The models that the server offers."""
        with self._used():
            return await self._inner.models()

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        """Tokens that `model` can take; see `Provider.context_window`."""
        with self._used():
            return await self._inner.context_window(model, controls)

    async def warm(self) -> None:
        """Load the client."""
        with self._used():
            await self._inner.warm()

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()

    def give_up(self) -> None:
        """Close it as soon as nobody uses it."""
        self._is_given_up = True
        if not self.users:
            self._given_up(self)

    @asynccontextmanager
    async def _streaming(
        self, answer: AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]
    ) -> AsyncGenerator[AsyncGenerator[ModelEvent, None], None]:
        with self._used():
            async with answer as events:
                yield events

    @contextmanager
    def _used(self) -> Generator[None]:
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.last_used = monotonic()
            if self._is_given_up and not self.users:
                self._given_up(self)


class ClientPool:
    """The newest client of each saved connection that is in use."""

    def __init__(
        self, make: Callable[[ConnectionRecord], Provider], *, most: int = 256, idle_seconds: float = 600
    ) -> None:
        """`most`: clients that are kept, of everybody together."""
        self._make = make
        self._most = most
        self._idle_seconds = idle_seconds
        self._clients: OrderedDict[_Key, tuple[int, SharedClient]] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, record: ConnectionRecord) -> Provider:
        """The client of that connection as it is now. Raises what making one raises.

        Whoever reads a row late does not bring an older version back.
        """
        key = (record.owner_id, record.id)
        version, client = self._clients.get(key, (0, None))
        if client is None or version < record.version:
            made = SharedClient(self._make(record), self._close_soon)
            if client is not None:
                client.give_up()
            self._clients[key] = (record.version, made)
            client = made
            self._make_room()
        self._clients.move_to_end(key)
        client.last_used = monotonic()
        return client

    def forget(self, owner_id: UserId, connection_id: ConnectionId) -> None:
        """Give up the client of a connection that is gone or switched off; runs that have it go on with it."""
        found = self._clients.pop((owner_id, connection_id), None)
        if found is not None:
            found[1].give_up()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Closes idle clients while it is entered, and all of them on leaving."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.wait([sweeper])
            clients = [client for _, client in self._clients.values()]
            self._clients.clear()
            await asyncio.gather(*self._closing, *(client.aclose() for client in clients))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._idle_seconds / 4)
            self.close_idle(before=monotonic() - self._idle_seconds)

    def close_idle(self, *, before: float) -> None:
        """Give up clients that nobody has used since then."""
        for key, (_, client) in list(self._clients.items()):
            if not client.users and client.last_used < before:
                self.forget(*key)

    def _make_room(self) -> None:
        while len(self._clients) > self._most:
            self.forget(*next(iter(self._clients)))

    def _close_soon(self, client: SharedClient) -> None:
        task = asyncio.create_task(client.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
