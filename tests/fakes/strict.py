"""A model server that takes nothing but a legal conversation, as the strictest of the real ones do."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from tests.fakes.openai_server import OpenAIFake

Wire = Mapping[str, Any]


class StrictOpenAIFake(OpenAIFake):
    """Refuses a request whose messages are not legal, with status 400; `refusals` are all reasons so far."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.refusals: list[str] = []

    def routes(self) -> list[web.RouteDef]:
        """Chat Completions alone is strict; the rest is as ever."""
        return [web.post("/v1/chat/completions", self._strictly), *super().routes()[1:]]

    async def _strictly(self, request: web.Request) -> web.StreamResponse:
        complaints = complaints_about((await request.json())["messages"])
        if not complaints:
            return await self._chat(request)
        await self.look_up(request)
        self.refusals.extend(complaints)
        error = {"message": "; ".join(complaints), "type": "invalid_request_error", "param": "messages", "code": None}
        return web.json_response({"error": error}, status=400)


def complaints_about(messages: Sequence[Wire]) -> list[str]:
    """What is wrong with messages of a Chat Completions request; nothing if they are legal."""
    complaints: list[str] = []
    waiting: list[str] = []
    for position, message in enumerate(messages):
        where = f"message {position} ({message['role']})"
        complaints += [f"{where}: {complaint}" for complaint in _alone(position, message)]
        if message["role"] == "tool":
            if not waiting or waiting.pop(0) != message["tool_call_id"]:
                complaints.append(f"{where}: answers {message['tool_call_id']!r}, which is not the next open call")
            continue
        if waiting:
            complaints.append(f"{where}: calls {waiting} have no result")
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    return complaints + ([f"calls {waiting} at the end have no result"] if waiting else [])


def _alone(position: int, message: Wire) -> list[str]:
    """What is wrong with a message whatever stands around it."""
    complaints: list[str] = []
    calls = message.get("tool_calls")
    if message["role"] == "system" and position > 0:
        complaints.append("a system message must come first")
    if calls is not None and not calls:
        complaints.append("an empty list of calls")
    if not calls and not _says_something(message["content"]):
        complaints.append("says nothing")
    ids = [call["id"] for call in calls or ()]
    if not all(ids) or len(set(ids)) < len(ids):
        complaints.append(f"calls that cannot be told apart: {ids}")
    complaints += [f"arguments of {call['id']} are no JSON object" for call in calls or () if not _is_object(call)]
    return complaints


def _says_something(content: object) -> bool:
    """Text, or a list of parts as messages with images have it."""
    return bool(content.strip() if isinstance(content, str) else content)


def _is_object(call: Wire) -> bool:
    try:
        return isinstance(json.loads(call["function"]["arguments"]), dict)
    except ValueError:
        return False
