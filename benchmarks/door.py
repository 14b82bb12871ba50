"""What it costs a request to say who asks: without accounts, with an access token, with an API key."""

import time
from functools import partial
from pathlib import Path

import httpx2

from benchmarks import usage
from benchmarks.report import Figures, compare, in_turns, percentile
from benchmarks.servers import Server, service, upstream

_PATIENT = {"LIMITS__REQUESTS_PER_MINUTE": "1000000"}
_PASSWORD = "a long one for a benchmark"


async def run(home: Path, *, quick: bool) -> None:
    """Print what reading one session takes in each of the three ways."""
    rounds, requests = (1, 200) if quick else (5, 2_000)
    async with (
        upstream(home) as (model, _),
        service(home, model, name="without accounts", settings=_PATIENT) as local,
        service(home, model, name="with accounts", settings=_PATIENT | {"AUTH_MODE": "accounts"}) as guarded,
        httpx2.AsyncClient(base_url=local.address) as owner,
        httpx2.AsyncClient(base_url=guarded.address) as signed_in,
        httpx2.AsyncClient(base_url=guarded.address) as program,
    ):
        await _sign_in(signed_in, program)
        ways = {
            "no accounts": partial(_read, local, owner, requests),
            "access token": partial(_read, guarded, signed_in, requests),
            "API key": partial(_read, guarded, program, requests),
        }
        for measure in ways.values():
            await measure()  # what is slow only once is not measured
        results = await in_turns(rounds, ways)
    compare(f"door: {requests:,} requests for one session per round, one after the other", results, "no accounts")


async def _sign_in(signed_in: httpx2.AsyncClient, program: httpx2.AsyncClient) -> None:
    account = {"email": "bench@example.org", "password": _PASSWORD}
    answer = (await signed_in.post("/api/auth/register", json=account)).raise_for_status().json()
    signed_in.headers["authorization"] = f"Bearer {answer['access_token']}"
    wanted = {"name": "benchmark", "scopes": ["read", "write"]}
    made = (await signed_in.post("/api/auth/api-keys", json=wanted)).raise_for_status().json()
    program.headers["authorization"] = f"Bearer {made['key']}"


async def _read(server: Server, http: httpx2.AsyncClient, requests: int) -> Figures:
    created = (await http.post("/api/sessions", json={})).raise_for_status().json()
    path, taken = f"/api/sessions/{created['id']}", list[int]()
    before = usage.cpu_seconds([server.pid])
    for _ in range(requests):
        began = time.perf_counter_ns()
        (await http.get(path)).raise_for_status()
        taken.append((time.perf_counter_ns() - began) // 1_000)
    return {
        "request, median [us]": percentile(taken, 0.5),
        "request, p95 [us]": percentile(taken, 0.95),
        "CPU, server process [us]": (usage.cpu_seconds([server.pid]) - before) / requests * 1e6,
    }
