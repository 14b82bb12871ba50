"""Who is not the owner gets nowhere over sockets either: every frame, with every id that it takes."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.integration.ownership.conftest import Person, World, random_id
from tests.integration.ownership.surface import Place, id_fields
from tests.integration.ownership.test_matrix import KINDS
from websocket.frames import CLIENT_FRAME
from websocket.multiplexed import MultiplexedClientFrame

_PATIENCE = 10

BODIES: Mapping[str, Mapping[str, Any]] = {
    "message": {"content": "Psst."},
    "regenerate": {},
    "interrupt": {},
    "approve": {"decision": "approve"},
    "chat": {"data": {"message": "Psst."}},
    "cancel": {},
}
"""The fields that a frame insists on, beside ids."""


@dataclass(frozen=True)
class Cell:
    """A frame, and an id in it."""

    dialect: bool
    type: str
    place: Place

    @property
    def kind(self) -> str:
        """What the id is the id of."""
        if (self.type, self.place.name) == ("cancel", "session_id"):
            return "run"  # what this dialect calls a chat session
        return KINDS[self.place.name]


def cells() -> list[Any]:
    """Every frame of both sockets with every id that it takes."""
    multiplexed: TypeAdapter[Any] = TypeAdapter(MultiplexedClientFrame)
    found: list[Any] = []
    for dialect, schema in ((False, CLIENT_FRAME.json_schema()), (True, multiplexed.json_schema())):
        for type, reference in schema["discriminator"]["mapping"].items():
            for steps in id_fields({"$ref": reference}, schema["$defs"]):
                cell = Cell(dialect, type, Place("body", steps))
                found.append(pytest.param(cell, id=f"{'chats' if dialect else 'session'}-{type}-{'/'.join(steps)}"))
    return found


@pytest.mark.parametrize("cell", cells())
async def test_somebody_elses_id_in_a_frame_is_as_good_as_none(world: World, cell: Cell) -> None:
    theirs, nothing = world.owner.things[cell.kind], random_id(cell.kind)
    before = await world.state()
    path = "/ws/chat" if cell.dialect else f"/ws/chat/{world.stranger.things['session']}"
    async with socket_of(world, world.stranger, path) as socket:
        told = await _refusal(socket, cell, theirs)
        same = await _refusal(socket, cell, nothing)
    assert told.replace(theirs, "<id>") == same.replace(nothing, "<id>")
    assert await world.state() == before


async def test_a_session_of_somebody_else_has_no_socket(world: World) -> None:
    codes: list[int | None] = []
    for session_id in (world.owner.things["session"], random_id("session")):
        async with socket_of(world, world.stranger, f"/ws/chat/{session_id}") as socket:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), _PATIENCE)
            codes.append(socket.close_code)
    assert codes == [4404, 4404]


@asynccontextmanager
async def socket_of(world: World, person: Person, path: str) -> AsyncGenerator[ClientConnection, None]:
    """A socket that `person` opened."""
    address = world.base_url.replace("http", "ws", 1) + path
    headers = {"authorization": f"Bearer {person.token}"}
    async with connect(address, additional_headers=headers, proxy=None) as socket:
        yield socket


async def _refusal(socket: ClientConnection, cell: Cell, id: str) -> str:
    """The error that a frame with that id gets."""
    frame: dict[str, Any] = json.loads(json.dumps({"type": cell.type, **BODIES[cell.type]}))
    inner: Any = frame
    *steps, last = [step for step in cell.place.steps if step != "0"]
    for step in steps:
        inner = inner[step]
    inner[last] = [id] if cell.place.steps[-1] == "0" else id
    await socket.send(json.dumps(frame))
    async with asyncio.timeout(_PATIENCE):
        while True:
            text = await socket.recv(decode=True)
            answer = json.loads(text)
            assert answer["type"] not in ("message_accepted", "chat_session_start", "interrupted", "cancelled"), text
            if answer["type"] == "error":
                return text
