"""What modules add to the time until a reply begins: twenty, of which ten are scripts, and a thousand triggers."""

import asyncio
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from benchmarks import usage
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
_TRIGGERS = 990
"""A prompt has at most a thousand references."""


async def run(home: Path, *, quick: bool) -> None:
    """Print the time to the first delta and the CPU time of turns, one session alone and a hundred at once."""
    turns, sessions, rounds = (5, 20, 1) if quick else (50, 100, 3)
    async with upstream(home) as (model, _), service(home, model) as server:
        modules = [f"@module{number}" for number in range(_MODULES)]
        triggers = [f"@trigger{number}" for number in range(_TRIGGERS)]
        await _make_modules(server)
        personas = {
            "20 modules": await _make(server, " ".join(modules)),
            "1,000 triggers": await _make(server, " ".join(triggers)),
            "nothing": await _make(server, ""),
        }
        measures = {name: partial(_measure, server, persona, turns, sessions) for name, persona in personas.items()}
        title = f"composing: {turns} turns alone, {sessions} sessions at once; half of the 20 modules are scripts"
        compare(title, await in_turns(rounds, measures), "nothing")


async def _measure(server: Server, persona: str, turns: int, sessions: int) -> Figures:
    await _change(server, persona, {"is_default": True})  # of all sessions that are made from now on
    async with chats(server, sessions) as talking:
        await warm_up(talking)
        await asyncio.gather(*map(_first_delta, talking))
        begun = _cpu(server)
        alone = [await _first_delta(talking[0]) for _ in range(turns)]
        between = _cpu(server)
        together = await asyncio.gather(*map(_first_delta, talking))
        ended = _cpu(server)
    return {
        "first delta, alone, p50 [ms]": median(alone),
        "CPU of a turn alone, with all processes [ms]": (between - begun) / turns * 1e3,
        "first delta, all at once, p50 [ms]": median(together),
        "first delta, all at once, p99 [ms]": percentile(together, 0.99),
        "CPU of one turn of these, with all processes [ms]": (ended - between) / sessions * 1e3,
    }


def _cpu(server: Server) -> float:
    """Seconds that the service, its database and its scripts have computed; those of ended processes are lost."""
    return usage.cpu_seconds([server.pid, *usage.descendants(server.pid)])


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
        for number in range(_TRIGGERS):
            fields = {
                "content": f"Lore {number}.",
                "trigger_pattern": f"dragon{number}|/wyrm{number}/|the {number} elves",
            }
            answer = await http.post("/api/modules", json={"name": f"trigger{number}", **fields})
            answer.raise_for_status()


async def _make(server: Server, template: str) -> str:
    """The id of a persona with that template."""
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as http:
        answer = await http.post("/api/personas", json={"name": f"With {len(template)}", "template": template})
        return answer.raise_for_status().json()["id"]


async def _change(server: Server, persona: str, fields: dict[str, Any]) -> None:
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as http:
        (await http.patch(f"/api/personas/{persona}", json=fields)).raise_for_status()
