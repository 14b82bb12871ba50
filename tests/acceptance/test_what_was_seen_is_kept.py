"""Whatever a client has seen outlives the process that showed it."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from db.binaries import Binaries
from db.embedded import EmbeddedPostgres
from tests.acceptance.aftermath import assert_nothing_in_progress, assert_seen_is_stored, database
from tests.acceptance.client import Client, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.waiting import eventually

PIECES = 60


class Listener:
    """A client with a question, the story that answers it, and what became of it."""

    def __init__(self, client: Client, question: str, pieces: list[str]) -> None:
        self.client = client
        self.question = question
        self.story = "".join(pieces)

    @property
    def run_id(self) -> str | None:
        """The run, once the client has seen that it was accepted."""
        return next((event["run_id"] for event in self.client.events if event["type"] == "message_accepted"), None)

    @property
    def has_end(self) -> bool:
        return any(event["type"] == "assistant_end" for event in self.client.events)

    async def listen(self) -> None:
        """Ask, and take everything until the connection breaks."""
        with contextlib.suppress(ConnectionClosed):
            await self.client.say(self.question, self.question)
        await self.client.read_on()

    async def come_back(self, service: Service) -> None:
        """Go on where it broke; ask again if nobody said that the question had been taken."""
        await self.client.connect(service)
        if self.run_id is None:
            await self.client.ask(self.question, self.question)
        if not self.has_end:
            await self.client.until("assistant_end", run_id=self.run_id)

    def reason(self) -> str:
        """How the reply ended; what was shown of it must be how the story begins, or all of it."""
        assert self.run_id is not None
        text, reason = self.client.text(self.run_id), self.client.end(self.run_id)["finish_reason"]
        match reason:
            case "stop":
                assert text == self.story
            case "interrupted":
                assert self.story.startswith(text)
                assert any(event["type"] == "interrupted" for event in self.client.of_run(self.run_id))
            case _:
                raise AssertionError(reason)
        return reason


def gathered(model: Narrator, clients: list[Client], chance: random.Random) -> list[Listener]:
    listeners: list[Listener] = []
    for number, client in enumerate(clients):
        pieces = story(chance, PIECES)
        model.tell(f"story {number}", *at_pace(pieces, 0.015))
        listeners.append(Listener(client, f"story {number}", pieces))
    return listeners


async def kill_in_the_middle(service: Service, listeners: list[Listener], moment: int) -> None:
    """Let all listen, and kill -9 the service when that many events have been seen."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(listener.listen()) for listener in listeners]
        seen = lambda: sum(len(listener.client.events) for listener in listeners)  # noqa: E731
        ended = lambda: all(task.done() for task in tasks) or all(one.has_end for one in listeners)  # noqa: E731
        await eventually(lambda: seen() >= moment or ended(), 30)
        service.kill()


async def all_come_back(service: Service, listeners: list[Listener]) -> None:
    async with asyncio.TaskGroup() as group:
        for listener in listeners:
            group.create_task(listener.come_back(service))


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_that_was_seen_is_lost_changed_or_doubled_by_kill_9(
    seed: int, database_url: str, model: Narrator, start: StartService
) -> None:
    chance = random.Random(seed)
    first = await start(database_url, TIMEOUTS__LEASE=1)
    async with crowd(first, 30) as clients:
        listeners = gathered(model, list(clients), chance)
        # The first events of all of them are some 240.
        await kill_in_the_middle(first, listeners, chance.randrange(100, 30 * PIECES // 2))
        second = await start(database_url, TIMEOUTS__LEASE=1)
        await all_come_back(second, listeners)
        reasons = [listener.reason() for listener in listeners]
        async with database(database_url) as connection:
            for listener in listeners:
                await assert_seen_is_stored(connection, listener.client)
        for listener in listeners:
            said = await second.history(listener.client.session_id)
            assert said[0] == ("user", listener.question)
            assert said[1:] == [("assistant", listener.client.text(str(listener.run_id)))]
    assert "interrupted" in reasons, "the kill came too late to prove anything"
    await assert_nothing_in_progress(database_url, model, second)


async def test_nothing_is_lost_when_the_database_dies_with_the_service(
    model: Narrator, start: StartService, postgres_binaries: Binaries, tmp_path: Path
) -> None:
    chance = random.Random(3)
    first = await start(None, TIMEOUTS__LEASE=1)
    async with crowd(first, 8) as clients:
        listeners = gathered(model, list(clients), chance)
        await kill_in_the_middle(first, listeners, chance.randrange(100, 8 * PIECES // 2))
        second = await start(None, TIMEOUTS__LEASE=1)
        await all_come_back(second, listeners)
        reasons = [listener.reason() for listener in listeners]
        url = EmbeddedPostgres(tmp_path / "data" / "postgres", postgres_binaries).dsn()
        async with database(url) as connection:
            for listener in listeners:
                await assert_seen_is_stored(connection, listener.client)
    assert "interrupted" in reasons, "the kill came too late to prove anything"
    await assert_nothing_in_progress(url, model, second)
    second.terminate()
    await second.ended()
