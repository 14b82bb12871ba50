"""What Colloquy is compared with: a WebSocket endpoint that passes a model's words on, and nothing else.

No accounts, no storage, no history, no replay: what it relays is gone when the socket is. It runs on the same server
with the same settings and reads the same official client, by default in the way that Colloquy does: chunks as plain
dictionaries, over aiohttp. With --sdk-default it reads them as most programs do: typed chunks over the default
transport.

python -m benchmarks.bare_relay [--sdk-default] UPSTREAM
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, WebSocket
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient
from starlette.websockets import WebSocketDisconnect

app = FastAPI()


@app.websocket("/ws/chat/{session_id}")
async def relay(socket: WebSocket, session_id: str) -> None:
    """Answer messages until the socket closes; `interrupt` stops the answer."""
    await socket.accept()
    await socket.send_text('{"type":"session_start"}')
    answering: asyncio.Task[None] | None = None
    with suppress(WebSocketDisconnect):
        while True:
            frame = orjson.loads(await socket.receive_text())
            if frame["type"] == "message":
                answering = asyncio.create_task(_answer(socket, frame))
            elif answering:
                answering.cancel()


async def _answer(socket: WebSocket, frame: dict[str, Any]) -> None:
    try:
        async for delta in app.state.deltas(frame["model"], [{"role": "user", "content": frame["content"]}]):
            await socket.send_text(orjson.dumps({"type": "text_delta", "delta": delta}).decode())
    except asyncio.CancelledError:
        await socket.send_text('{"type":"interrupted"}')
    await socket.send_text('{"type":"assistant_end"}')


class FastDeltas:
    """The official client, reading dictionaries over aiohttp."""

    def __init__(self, upstream: str) -> None:
        self._client = AsyncOpenAI(base_url=upstream, api_key="none", http_client=DefaultAioHttpClient())

    async def __call__(self, model: str, messages: list[dict[str, str]]) -> AsyncGenerator[str, None]:
        body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        stream = await self._client.post(
            "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=AsyncStream[Any]
        )
        async with stream:
            async for chunk in stream:
                if chunk["choices"] and (text := chunk["choices"][0]["delta"].get("content")):
                    yield text


class DefaultDeltas:
    """The official client as it is documented."""

    def __init__(self, upstream: str) -> None:
        self._client = AsyncOpenAI(base_url=upstream, api_key="none")

    async def __call__(self, model: str, messages: list[Any]) -> AsyncGenerator[str, None]:
        stream = await self._client.chat.completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    yield text


class _Server(uvicorn.Server):
    """uvicorn that says where it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    app.state.deltas = (DefaultDeltas if "--sdk-default" in arguments else FastDeltas)(arguments[-1])
    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    _Server(config).run()


if __name__ == "__main__":
    main(sys.argv[1:])
