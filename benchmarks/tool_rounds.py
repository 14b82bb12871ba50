"""What a round of tools costs in a reply: the model asks for a call, it is made, and the model is asked again.

Beside it the same with nothing in between: the bare client of the protocol and plain HTTP; nothing is kept or shown.
"""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median

import httpx2
from mcp import Client, StdioServerParameters

from benchmarks.report import Figures, compare, in_turns
from benchmarks.servers import Server, service
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import call

_SERVER = Path(__file__).parents[1] / "tests" / "fakes" / "hostile_tools.py"
_WORDS = ["-S", "-E", str(_SERVER)]


async def run(home: Path, *, quick: bool) -> None:
    """Print the time of a round, with one call and with eight side by side."""
    replies, rounds, repeats = (2, 5, 1) if quick else (10, 20, 3)
    async with OpenAIFake() as model:
        settings = {"MCP_CONFIG": str(_config(home)), "TIMEOUTS__TOOL_WAIT": "30"}
        async with service(home, model.url, settings=settings) as server:
            measures = {
                "service": partial(_in_a_reply, server, model, replies, rounds),
                "bare clients": partial(_bare, model, replies, rounds),
            }
            title = f"tool rounds: {replies} replies of {rounds} rounds each"
            compare(title, await in_turns(repeats, measures), "bare clients")


def _config(home: Path) -> Path:
    file = home / "mcp.json"
    entry = {"command": sys.executable, "args": _WORDS, "mode": "legacy"}
    file.write_text(json.dumps({"mcpServers": {"fake": entry}}))
    return file


def _tell(model: OpenAIFake, name: str, rounds: int, calls: int) -> None:
    for number in range(rounds):
        model.script(*(call(at, name, {"a": at}, id=f"r{number}c{at}") for at in range(calls)))
    model.reply("Done.")


async def _in_a_reply(server: Server, model: OpenAIFake, replies: int, rounds: int) -> Figures:
    async with httpx2.AsyncClient(base_url=server.address, timeout=120) as http:
        session: str = (await http.post("/api/sessions", json={})).raise_for_status().json()["id"]

        async def reply(rounds: int, calls: int) -> float:
            _tell(model, "fake__echo", rounds, calls)
            begun = time.perf_counter()
            answer = await http.post(f"/api/sessions/{session}/messages", json={"content": "Go"})
            assert answer.raise_for_status().json()["finish_reason"] == "stop"
            return time.perf_counter() - begun

        await reply(1, 1)
        return await _figures(reply, replies, rounds)


async def _bare(model: OpenAIFake, replies: int, rounds: int) -> Figures:
    program = StdioServerParameters(command=sys.executable, args=_WORDS, env=dict(os.environ))
    body = {"model": "fake-small", "stream": True, "messages": [{"role": "user", "content": "Go"}]}
    async with Client(program, mode="legacy", cache=None) as client, httpx2.AsyncClient(timeout=120) as http:

        async def reply(rounds: int, calls: int) -> float:
            _tell(model, "echo", rounds, calls)
            begun = time.perf_counter()
            for number in range(rounds + 1):
                (await http.post(f"{model.url}/chat/completions", json=body)).raise_for_status()
                for at in range(calls if number < rounds else 0):
                    await client.call_tool("echo", {"a": at})
            return time.perf_counter() - begun

        await reply(1, 1)
        return await _figures(reply, replies, rounds)


async def _figures(reply: Callable[[int, int], Awaitable[float]], replies: int, rounds: int) -> Figures:
    figures: dict[str, float] = {}
    without = 0.0
    for calls in (1, 8):
        with_tools = median([await reply(rounds, calls) for _ in range(replies)])
        without = median([await reply(0, calls) for _ in range(replies)])
        noun = "call" if calls == 1 else "calls"
        figures[f"round of {calls} {noun} [ms]"] = (with_tools - without) / rounds * 1e3
    figures["reply without [ms]"] = without * 1e3
    return figures
