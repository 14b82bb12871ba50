"""What a prompt of twenty modules, ten of them scripts, adds to the time until a reply begins."""

import asyncio
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from benchmarks.clients import Chat, chats, soon
from benchmarks.load import warm_up
from benchmarks.report import Figures, compare, in_turns, percentile
from benchmarks.servers import Server, service, upstream
from benchmarks.upstream import paced

_MODEL = paced(0, 1)
_SCRIPT = """\
seen = ctx.get_variable("seen", 0) + 1
ctx.set_variable("seen", seen)
ctx.set_output("said", f"Seen {seen} times.")
"""
_MODULES = 20


async def run(home: Path, *, quick: bool) -> None:
    """Print the time to the first delta with and without modules, one session alone and a hundred at once."""
    turns, sessions, rounds = (5, 20, 1) if quick else (50, 100, 3)
    async with upstream(home) as (model, _), service(home, model) as server:
        modules = [f"@module{number}" for number in range(_MODULES)]
        await _make_modules(server)
        personas = {"20 modules": await _make(server, " ".join(modules)), "nothing": await _make(server, "")}
        measures = {name: partial(_measure, server, persona, turns, sessions) for name, persona in personas.items()}
        title = f"composing: {_MODULES} modules, half of them scripts; {turns} turns alone, {sessions} sessions at once"
        compare(title, await in_turns(rounds, measures), "nothing")


async def _measure(server: Server, persona: str, turns: int, sessions: int) -> Figures:
    await _change(server, persona, {"is_default": True})  # of all sessions that are made from now on
    async with chats(server, sessions) as talking:
        await warm_up(talking)
        alone = [await _first_delta(talking[0]) for _ in range(turns)]
        together = await asyncio.gather(*map(_first_delta, talking))
    return {
        "first delta, alone, p50 [ms]": median(alone),
        "first delta, all at once, p50 [ms]": median(together),
        "first delta, all at once, p99 [ms]": percentile(together, 0.99),
    }


async def _first_delta(chat: Chat) -> float:
    """Milliseconds from the message to the first delta."""
    over = chat.expect("post_response_complete")
    turn = await chat.turn(_MODEL)
    await soon(over)
    assert turn.first_delta is not None
    return (turn.first_delta - turn.sent) / 1e3


async def _make_modules(server: Server) -> None:
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as http:
        for number in range(_MODULES):
            script = {"type": "advanced", "script": _SCRIPT, "content": f"Script {number}: ${{said}}"}
            fields: dict[str, Any] = script if number % 2 else {"content": f"Rule {number}: be kind at ${{now}}."}
            answer = await http.post("/api/modules", json={"name": f"module{number}", **fields})
            answer.raise_for_status()


async def _make(server: Server, template: str) -> str:
    """The id of a persona with that template."""
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as http:
        answer = await http.post("/api/personas", json={"name": f"With {len(template)}", "template": template})
        return answer.raise_for_status().json()["id"]


async def _change(server: Server, persona: str, fields: dict[str, Any]) -> None:
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as http:
        (await http.patch(f"/api/personas/{persona}", json=fields)).raise_for_status()
