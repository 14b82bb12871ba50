"""Two processes of the service on one PostgreSQL, and somebody who breaks them."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path

import httpx2

from services.runs.tasks import whatever_happens
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.ledger import Ledger
from tests.postgres import DurablePostgres
from tests.soak.tally import Tally

REPLICAS = 2
_FROZEN_SECONDS = 4.0
_STOP_SECONDS = 30.0
_PROBE_SECONDS = 0.25


class Stack:
    """The replicas; each is replaced when it ends."""

    def __init__(self, home: Path, postgres: DurablePostgres, model: Narrator, ledger: Ledger, tally: Tally) -> None:
        self.postgres = postgres
        self.model = model
        self.ledger = ledger
        self.replicas: list[Service | None] = [None] * REPLICAS
        self.gone: list[Service] = []
        """Those that have ended."""
        self.headers_of: dict[str, dict[str, str]] = {}
        """How each user shows who they are."""
        self.memory: dict[int, int] = {}
        """Resident bytes of each process just after its start."""
        self._home = home
        self._tally = tally
        self._started = 0

    async def start(self, place: int) -> Service:
        """Put a new process in that place."""
        self._started += 1
        settings = {
            "DATA_DIR": str(self._home / "data"),
            "DATABASE_URL": self.postgres.url,
            "DEFAULT_PROVIDER": "openai",
            "OPENAI_BASE_URL": self.model.url,
            "OPENAI_API_KEY": "key",
            "OPENAI_DEFAULT_MODEL": "fake-small",
            "MCP_CONFIG": str(self.ledger.config()),
            "TIMEOUTS__LEASE": "4",
            "TIMEOUTS__DRAIN": "5",
            "LIMITS__FRAMES_PER_MINUTE": "30000",
            "CONTEXT__DEFAULT_WINDOW": "3000",
            "AUTH_MODE": "accounts",
            "PASSWORDS__MEMORY_KIB": "64",
            **{f"GUESSING__{name}": "1000000" for name in ("PER_ACCOUNT", "PER_ADDRESS", "REGISTRATIONS_PER_ADDRESS")},
            "LIMITS__STRANGERS_PER_ADDRESS": "1000",
        }
        service = Service(self._home / f"service-{self._started}", settings)
        with self._tally.timed("start of a process"):
            await service.ready()
        self.memory[service.process.pid] = service.memory
        self.replicas[place] = service
        return service

    def end(self, place: int) -> Service:
        """The process in that place, which nobody is sent to any more."""
        service = self.replicas[place]
        assert service is not None
        self.replicas[place] = None
        self.gone.append(service)
        return service

    async def anyone(self, chance: random.Random) -> Service:
        """A replica that is there."""
        while not (there := [service for service in self.replicas if service is not None]):
            await asyncio.sleep(0.1)
        return chance.choice(there)

    @property
    def all_there(self) -> list[Service]:
        """The replicas that are there."""
        return [service for service in self.replicas if service is not None]


class Trouble:
    """Breaks something every few seconds, and mends it."""

    def __init__(self, stack: Stack, chance: random.Random, tally: Tally, pause: float) -> None:
        self._stack = stack
        self._chance = chance
        self._tally = tally
        self._pause = pause
        self._faults: list[Callable[[], Coroutine[None, None, None]]] = [
            self.kill_a_replica,
            self.stop_a_replica,
            self.freeze_a_replica,
            self.restart_postgres,
            self.kill_postgres,
            self.kill_a_backend,
            self.end_connections,
        ]

    async def go_on(self) -> None:
        """Until cancelled: every fault once in some order, then again in another."""
        while not _is_cancelled():
            for fault in self._chance.sample(self._faults, len(self._faults)):
                await asyncio.sleep(self._pause * self._chance.uniform(0.6, 1.4))
                self._tally.faults[getattr(fault, "__name__", "?")] += 1
                await whatever_happens(fault())  # what is broken is mended also at the end
                if _is_cancelled():
                    break

    async def kill_a_replica(self) -> None:
        place = self._chance.randrange(REPLICAS)
        self._stack.end(place).kill()
        await self._stack.start(place)

    async def stop_a_replica(self) -> None:
        place = self._chance.randrange(REPLICAS)
        service = self._stack.end(place)
        service.terminate()
        with self._tally.timed("stop of a process"):
            code = await asyncio.to_thread(service.process.wait, _STOP_SECONDS)
        assert code == 0, f"a process that was asked to stop ended with {code}: {service.log[-500:]}"
        await self._stack.start(place)

    async def freeze_a_replica(self) -> None:
        service = self._stack.replicas[self._chance.randrange(REPLICAS)]
        assert service is not None
        await service.freeze()
        await asyncio.sleep(_FROZEN_SECONDS)
        service.thaw()

    async def restart_postgres(self) -> None:
        await self._stack.postgres.restart()

    async def kill_postgres(self) -> None:
        await self._stack.postgres.kill()
        await self._stack.postgres.start()

    async def kill_a_backend(self) -> None:
        await self._stack.postgres.kill_backend()

    async def end_connections(self) -> None:
        await self._stack.postgres.end_connections()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextlib.asynccontextmanager
async def probed(stack: Stack, tally: Tally) -> AsyncGenerator[None, None]:
    """How long each replica takes meanwhile to say that it lives: what its loop does not let pass shows there."""
    probing = asyncio.create_task(_probe(stack, tally))
    try:
        yield
    finally:
        probing.cancel()
        await asyncio.wait([probing])


async def _probe(stack: Stack, tally: Tally) -> None:
    async with httpx2.AsyncClient(timeout=10) as http:
        while True:
            for service in stack.all_there:
                with contextlib.suppress(httpx2.HTTPError), tally.timed("answer of /livez"):
                    await http.get(f"{service.address}/livez")
            await asyncio.sleep(_PROBE_SECONDS)
