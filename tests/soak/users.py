"""Users of all kinds, who do one thing after the other and put up with what happens to the service."""

import asyncio
import contextlib
import hashlib
import json
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.acceptance.client import Client
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.fakes.script import Cut, Endless, Fault, Hang, Pause, Raw, Status, Stop, Text, call
from tests.soak.stack import Stack
from tests.soak.tally import Tally

DISTURBANCES = (OSError, WebSocketException, httpx2.HTTPError, TimeoutError, asyncio.IncompleteReadError)
"""What a user sees of a service that is killed."""
FLOOD = 3_000
_BUSY = (429, 503)

Deed = Callable[["User"], Awaitable[None]]


def tell(model: Narrator, chance: random.Random) -> None:
    """What the model says, and how it fails."""
    for number in range(6):
        model.tell(f"short {number}", *at_pace(story(chance, 8), 0.01))
        model.tell(f"long {number}", *at_pace(story(chance, 80), 0.02))
    model.tell("endless", Endless("and ", 0.02))
    model.tell("silence", Hang())
    model.tell("late", Pause(1.5), Text("At last."))
    model.tell("refused", Status(400, "no"))
    model.tell("broken", Text("It "), Text("was "), Cut())
    model.tell("short of its end", Text("It "), Stop())
    model.tell("faulty", Text("It "), Fault("the model fell over"))
    model.tell("garbled", Raw(b"data: {this is no JSON}\n\n"), Stop())
    model.tell("overloaded", Status(503, "busy"))
    model.tell("tool", call(0, "ledger__talk", {"characters": 500}, id="t"))
    model.tell("risky", call(0, "ledger__remove", {"text": "soak"}, id="r"))
    model.tell("remove done: soak", Text("Gone."))


FAILING = ("refused", "broken", "short of its end", "faulty", "garbled", "overloaded")


class User:
    """Somebody with a chance of their own."""

    def __init__(self, number: int, seed: int, stack: Stack, tally: Tally) -> None:
        self.chance = random.Random(seed * 1_000 + number)
        self.stack = stack
        self.tally = tally
        self.headers: dict[str, str] = {}
        self.account = {"email": f"user-{number}@example.org", "password": f"the {number}th of many long words"}

    async def join(self) -> None:
        """Register, and make a key to show from now on."""
        service = await self.service()
        signed_in = await service.request("POST", "/api/auth/register", json=self.account)
        self.headers = await made_key(service, _bearer(signed_in["access_token"]))
        self.stack.headers_of[signed_in["user"]["id"]] = self.headers

    async def live(self) -> None:
        """Until cancelled. What the service answers wrong is raised; what its end does to a connection is not."""
        while True:
            deed = self.chance.choice(DEEDS)
            name = deed.__name__
            try:
                async with asyncio.timeout(120):
                    await deed(self)
                self.tally.deeds[name] += 1
            except DISTURBANCES as error:
                if isinstance(error, httpx2.HTTPStatusError) and error.response.status_code not in _BUSY:
                    raise AssertionError(f"{name} was answered {error.response.text}") from error
                self.tally.disturbed[name] += 1
                await asyncio.sleep(0.2)

    async def service(self) -> Service:
        return await self.stack.anyone(self.chance)

    async def new_session(self, service: Service) -> str:
        """The id of a fresh session of theirs."""
        return (await service.request("POST", "/api/sessions", json={}, headers=self.headers))["id"]

    def identity(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128)))

    def took(self, client: Client, message_id: str) -> None:
        self.tally.accepted.append((client.session_id, message_id))


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def made_key(service: Service, signed_in: dict[str, str]) -> dict[str, str]:
    """The headers of a new key."""
    wanted = {"name": "soak", "scopes": ["read", "write", "chat"]}
    made = await service.request("POST", "/api/auth/api-keys", json=wanted, headers=signed_in)
    return _bearer(made["key"])


@contextlib.asynccontextmanager
async def browser(user: User, service: Service) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with httpx2.AsyncClient(base_url=service.address, timeout=60, headers=user.headers) as http:
        yield http


@contextlib.asynccontextmanager
async def connected(user: User, at: Service | None = None) -> AsyncGenerator[Client, None]:
    """A client of a new session."""
    service = at or await user.service()
    client = Client(await user.new_session(service), user.headers)
    await client.connect(service)
    try:
        yield client
    finally:
        await client.leave()


# --- deeds -----------------------------------------------------------------------------------------------------------


async def talks(user: User) -> None:
    """A careful client: whatever happens, the message is taken once and its reply is read to its end."""
    async with connected(user) as client:
        for _ in range(user.chance.randint(1, 4)):
            question, message_id = (
                f"{user.chance.choice(['short', 'long'])} {user.chance.randrange(6)}",
                user.identity(),
            )
            await insisted(user, client, question, message_id)


async def insisted(user: User, client: Client, question: str, message_id: str) -> None:
    """Send until it is known to be taken, at whatever replica is there, and read the end."""
    while True:
        try:
            if (run_id := client.accepted(message_id)) is None:
                with user.tally.timed("message until accepted"):
                    await client.say(question, message_id)
                    if not await is_taken(client, message_id):
                        raise Refused
            elif client.has_end(run_id):
                user.took(client, message_id)
                client.end(run_id)
                return
            else:
                await client.until("assistant_end", run_id=run_id, within=90)
        except Refused:
            await asyncio.sleep(user.chance.uniform(0.05, 0.5))
        except (ConnectionClosed, OSError):
            await came_back(user, client)


class Refused(Exception):
    """The service cannot take the message just now."""


async def is_taken(client: Client, message_id: str) -> bool:
    """False if the service says that it cannot be taken just now."""
    while client.accepted(message_id) is None:
        event = await client.next()
        if event["type"] == "error" and "seq" not in event:
            assert event["retryable"], event
            return False
    return True


async def came_back(user: User, client: Client) -> None:
    """Connect again, at any replica, until one lets us."""
    while True:
        with contextlib.suppress(*DISTURBANCES):
            await client.leave()
        try:
            with user.tally.timed("coming back"):
                await client.connect(await user.service())
        except DISTURBANCES:
            await asyncio.sleep(user.chance.uniform(0.05, 0.5))
        else:
            return


async def stops(user: User) -> None:
    async with connected(user) as client:
        run_id = await client.ask(user.chance.choice(["endless", "silence", "long 1"]), user.identity())
        await asyncio.sleep(user.chance.uniform(0, 0.5))
        with user.tally.timed("interrupt until told"):
            await client.interrupt()
            await client.until("interrupted", "assistant_end", "error")
        if not client.has_end(run_id):
            await client.until("assistant_end", run_id=run_id)
        client.end(run_id)


async def changes_their_mind(user: User) -> None:
    async with connected(user) as client:
        for question in ("endless", "endless", "short 1"):
            await client.say(question, user.identity(), when_busy=user.chance.choice(["interrupt", "steer"]))
        await client.interrupt()
        await client.until("assistant_end", count=1)


async def queues(user: User) -> None:
    async with connected(user) as client:
        names = [user.identity() for _ in range(3)]
        for number, message_id in enumerate(names):
            await client.say(f"short {number}", message_id, when_busy="queue")
        await client.until("assistant_end", count=3)
        for message_id in names:
            user.took(client, message_id)


async def goes_away(user: User) -> None:
    async with connected(user) as client:
        await client.ask("long 2", user.identity())
        await client.cut()


async def does_not_read(user: User) -> None:
    async with connected(user) as client:
        await client.ask("long 3", user.identity())
        client.socket.transport.pause_reading()
        await asyncio.sleep(2)
        await client.cut()


async def floods(user: User) -> None:
    async with connected(user) as client:
        for _ in range(FLOOD):
            await client.send({"type": "ping"})
        await client.until("pong", count=FLOOD // 2)


async def sends_nonsense(user: User) -> None:
    async with connected(user) as client:
        await client.socket.send("{")
        await client.socket.send(b"\x00")
        await client.send({"type": "message", "content": "", "nonsense": 1})
        await client.until("error", count=3)


async def meets_a_bad_model(user: User) -> None:
    async with connected(user) as client:
        run_id = await client.ask(user.chance.choice(FAILING), user.identity())
        await client.until("assistant_end", run_id=run_id)
        assert client.end(run_id)["finish_reason"] in ("error", "interrupted")


async def uses_tools(user: User) -> None:
    async with connected(user) as client:
        run_id = await client.ask("tool", user.identity())
        await client.until("assistant_end", run_id=run_id)


async def is_asked(user: User) -> None:
    async with connected(user) as client:
        run_id = await client.ask("risky", user.identity())
        if (await client.until("approval_required", "assistant_end"))["type"] == "approval_required":
            word = user.chance.choice(["approve", "reject"])
            await client.send({"type": "approve", "tool_call_id": "r", "decision": word})
            await client.until("assistant_end", run_id=run_id)


async def asks_over_rest(user: User) -> None:
    service = await user.service()
    session = await user.new_session(service)
    async with browser(user, service) as http:
        body = {"content": "short 4", "client_message_id": user.identity()}
        answers = [await http.post(f"/api/sessions/{session}/messages", json=body) for _ in range(2)]
        for answer in answers:
            assert answer.status_code == 200 or answer.json()["retryable"] is not False, answer.text


async def leaves_a_stream(user: User) -> None:
    service = await user.service()
    session = await user.new_session(service)
    async with browser(user, service) as http:
        path, headers = f"/api/sessions/{session}/messages", {"accept": "text/event-stream"}
        async with http.stream("POST", path, json={"content": "long 5"}, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if "text_delta" in line:
                    return


async def keeps_files(user: User) -> None:
    service = await user.service()
    session = await user.new_session(service)
    async with browser(user, service) as http:
        data = user.chance.randbytes(user.chance.randint(1, 200_000))
        kept = await http.post(f"/api/sessions/{session}/files", files={"file": ("a.bin", data)})
        if kept.status_code == 503:
            return
        assert kept.status_code == 201, kept.text
        got = await http.get(kept.json()["url"])
        assert got.status_code == 503 or hashlib.sha256(got.content).hexdigest() == kept.json()["sha256"]
        if user.chance.random() < 0.5:
            await http.delete(kept.json()["url"])


async def deletes_under_the_run(user: User) -> None:
    service = await user.service()
    async with connected(user, service) as client, browser(user, service) as http:
        await client.ask("endless", user.identity())
        await client.until("text_delta")
        await http.delete(f"/api/sessions/{client.session_id}")
        await client.read_on()


async def chats_in_the_other_dialect(user: User) -> None:
    service = await user.service()
    session = await user.new_session(service)
    async with connect(
        f"{service.address.replace('http', 'ws', 1)}/ws/chat", additional_headers=user.headers
    ) as socket:
        chat = {"message": "endless", "provider": "openai", "conversation_id": session}
        await socket.send(json.dumps({"type": "chat", "data": chat}))
        while (frame := json.loads(await socket.recv()))["type"] not in ("chunk", "error"):
            pass
        if frame["type"] == "error":
            return
        await socket.send(json.dumps({"type": "cancel", "session_id": frame["data"]["chat_session_id"]}))
        while json.loads(await socket.recv())["type"] not in ("cancelled", "done"):
            pass


async def signs_in_and_out(user: User) -> None:
    service = await user.service()
    async with httpx2.AsyncClient(base_url=service.address, timeout=60) as http:
        signed_in = (await http.post("/api/auth/login", json=user.account)).raise_for_status().json()
        headers = _bearer(signed_in["access_token"])
        (await http.get("/api/auth/me", headers=headers)).raise_for_status()
        (await http.post("/api/auth/logout", json={}, headers=headers)).raise_for_status()
        assert (await http.get("/api/auth/me", headers=headers)).status_code in (401, 503)


async def takes_a_key_away(user: User) -> None:
    """What the key opened ends, at whatever replica."""
    service, other = await user.service(), await user.service()
    signed_in = await service.request("POST", "/api/auth/login", json=user.account)
    headers = _bearer(signed_in["access_token"])
    made = await service.request(
        "POST", "/api/auth/api-keys", json={"name": "stolen", "scopes": ["read", "chat"]}, headers=headers
    )
    client = Client(await user.new_session(service), _bearer(made["key"]))
    await client.connect(other)
    try:
        run_id = await client.ask("endless", user.identity())
        await client.until("text_delta")
        await service.request("DELETE", f"/api/auth/api-keys/{made['api_key']['id']}", headers=headers)
        with user.tally.timed("key taken away until closed"):
            await client.read_on()
        assert client.close_code in (4401, 1001, 1006, 1012, 1013), client.close_code
    finally:
        await client.leave()
    assert run_id


DEEDS: list[Deed] = [
    *[talks] * 6,
    *[stops] * 3,
    changes_their_mind,
    queues,
    goes_away,
    does_not_read,
    floods,
    sends_nonsense,
    meets_a_bad_model,
    uses_tools,
    is_asked,
    asks_over_rest,
    leaves_a_stream,
    *[keeps_files] * 2,
    deletes_under_the_run,
    chats_in_the_other_dialect,
    signs_in_and_out,
    takes_a_key_away,
]
