"""After whatever clients, models and networks do, nothing is left running, open or half stored."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable

import httpx2
from websockets.asyncio.client import connect

from tests.acceptance.aftermath import assert_nothing_in_progress
from tests.acceptance.client import Client, connected
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.fakes.script import Cut, Endless, Fault, Raw, Status, Stop, Text

Deed = Callable[[Service, Client], Awaitable[None]]

ROUNDS = 4


def told(model: Narrator) -> None:
    model.tell("short", Text("Yes."))
    model.tell("long", *at_pace(story(random.Random(8), 30), 0.01))
    model.tell("endless", Endless("and ", 0.02))
    model.tell("refused", Status(400, "no"))
    model.tell("broken", Text("It "), Text("was "), Cut())
    model.tell("short of its end", Text("It "), Stop())
    model.tell("faulty", Text("It "), Fault("the model fell over"))
    model.tell("garbled", Raw(b"data: {this is no JSON}\n\n"), Stop())


async def asks(service: Service, client: Client) -> None:
    await client.ask("long")
    await client.until("post_response_complete")


async def stops(service: Service, client: Client) -> None:
    run_id = await client.ask("endless")
    await client.until("text_delta", run_id=run_id)
    await client.interrupt()
    await client.until("assistant_end", run_id=run_id)


async def stops_at_once(service: Service, client: Client) -> None:
    run_id = await client.ask("endless")
    await client.interrupt()
    await client.until("assistant_end", run_id=run_id)


async def changes_its_mind(service: Service, client: Client) -> None:
    await client.ask("endless")
    await client.say("endless", "second")
    await client.say("short", "third")
    await client.until("post_response_complete")


async def queues(service: Service, client: Client) -> None:
    await client.ask("long")
    for number in range(3):
        await client.say("short", f"queued {number}", when_busy="queue")
    await client.until("post_response_complete", count=4)


async def goes_away(service: Service, client: Client) -> None:
    await client.ask("long")
    await client.cut()


async def deletes_under_the_run(service: Service, client: Client) -> None:
    await client.ask("endless")
    await client.until("text_delta")
    await service.request("DELETE", f"/api/sessions/{client.session_id}")


async def meets_a_bad_model(service: Service, client: Client) -> None:
    for question in ("refused", "broken", "short of its end", "faulty", "garbled"):
        run_id = await client.ask(question)
        await client.until("assistant_end", run_id=run_id)
        assert client.end(run_id)["finish_reason"] == "error"
        assert sum(event["type"] == "error" for event in client.of_run(run_id)) == 1


async def asks_over_rest(service: Service, client: Client) -> None:
    answer = await service.request("POST", f"/api/sessions/{client.session_id}/messages", json={"content": "short"})
    assert answer["message"]["content"] == "Yes."


async def leaves_an_event_stream(service: Service, client: Client) -> None:
    async with httpx2.AsyncClient(base_url=service.address, timeout=20) as http:
        path, headers = f"/api/sessions/{client.session_id}/messages", {"accept": "text/event-stream"}
        async with http.stream("POST", path, json={"content": "long"}, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if "text_delta" in line:
                    return


async def chats_in_the_other_dialect(service: Service, client: Client) -> None:
    async with connect(f"{service.address.replace('http', 'ws', 1)}/ws/chat") as socket:
        chat = {"message": "endless", "provider": "openai", "conversation_id": client.session_id}
        await socket.send(json.dumps({"type": "chat", "data": chat}))
        while (frame := json.loads(await socket.recv()))["type"] != "chunk":
            pass
        await socket.send(json.dumps({"type": "cancel", "session_id": frame["data"]["chat_session_id"]}))
        while json.loads(await socket.recv())["type"] != "cancelled":
            pass


DEEDS: list[Deed] = [
    asks,
    stops,
    stops_at_once,
    changes_its_mind,
    queues,
    goes_away,
    deletes_under_the_run,
    meets_a_bad_model,
    asks_over_rest,
    leaves_an_event_stream,
    chats_in_the_other_dialect,
]


async def test_after_all_kinds_of_use_nothing_is_left(database_url: str, model: Narrator, start: StartService) -> None:
    chance = random.Random(9)
    told(model)
    services = [await start(database_url, TIMEOUTS__LEASE=5) for _ in range(2)]
    deeds = DEEDS * ROUNDS
    chance.shuffle(deeds)

    async def do(deed: Deed, service: Service) -> None:
        async with connected(service) as client:
            await deed(service, client)

    async with asyncio.TaskGroup() as group:
        for number, deed in enumerate(deeds):
            group.create_task(do(deed, services[number % 2]))
    await assert_nothing_in_progress(database_url, model, *services)
    for service in services:
        service.terminate()
    for service in services:
        await service.ended()
    await assert_nothing_in_progress(database_url, model)
