"""A backup that was made under load brings everything back after everything was destroyed."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
from websockets.asyncio.client import connect

from tests.acceptance.aftermath import assert_nothing_in_progress
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace, story
from tests.acceptance.processes import Service
from tests.fakes.script import Endless, Text
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
TALKS = 6


async def command(*words: str, data_dir: Path, **settings: str) -> tuple[int, str]:
    """`python -m api …`: its exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api", *words),
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(data_dir), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def talked(service: Service, clients: list[Client], model: Narrator) -> dict[str, bytes]:
    """Let everybody have said something and keep a file; the files by their addresses."""
    chance = random.Random(21)
    files: dict[str, bytes] = {}
    async with httpx2.AsyncClient(base_url=service.address, timeout=30) as http:
        for number, client in enumerate(clients):
            model.tell(f"story {number}", *at_pace(story(chance, 10), 0))
            run_id = await client.ask(f"story {number}")
            await client.until("assistant_end", run_id=run_id)
            data = chance.randbytes(10_000)
            path = f"/api/sessions/{client.session_id}/files"
            kept = (await http.post(path, files={"file": ("a.bin", data)})).raise_for_status().json()
            files[kept["url"]] = data
    return files


async def test_what_was_said_until_the_backup_is_there_again_and_readers_are_told(
    database_url: str, empty_database_url: str, model: Narrator, start: StartService, tmp_path: Path
) -> None:
    model.tell("endless", Endless("and ", 0.02))
    model.tell("waiting", Text("Never asked."))
    model.tell("and now?", Text("As before."))
    service = await start(database_url, TIMEOUTS__LEASE=2)
    async with crowd(service, TALKS) as crowded, connected(service) as reader:
        clients = list(crowded)
        files = await talked(service, clients, model)
        said = [await service.history(client.session_id) for client in clients]
        running = await reader.ask("endless")
        queued = await reader.ask("waiting", when_busy="queue")
        await reader.until("text_delta", count=5)
        backup = tmp_path / "backup.zip"
        code, output = await command("backup", str(backup), data_dir=tmp_path / "data", DATABASE_URL=database_url)
        assert code == 0, output
        seen = reader.position
        await reader.until("text_delta", count=20)
        assert reader.position > seen, "the service went on meanwhile"
        service.kill()
        for client in (*clients, reader):
            await client.read_on()
    shutil.rmtree(tmp_path / "data")

    code, output = await command("restore", str(backup), data_dir=tmp_path / "data", DATABASE_URL=empty_database_url)
    assert code == 0, output
    service = await start(empty_database_url, TIMEOUTS__LEASE=2)
    for client, before in zip(clients, said, strict=True):
        assert await service.history(client.session_id) == before
        await is_told_that_its_past_is_another(service, client)
    async with httpx2.AsyncClient(base_url=service.address, timeout=30) as http:
        for url, data in files.items():
            assert (await http.get(url)).content == data
    await is_told_that_its_past_is_another(service, reader)
    again = Client(reader.session_id)
    await again.connect(service)
    try:
        for run_id in (running, queued):
            if not again.has_end(run_id):
                await again.until("assistant_end", run_id=run_id)
            assert again.end(run_id)["finish_reason"] == "interrupted"
        assert reader.text(running).startswith(again.text(running))
        assert again.text(running), "what was shown until the backup is kept"
        run_id = await again.ask("and now?")
        await again.until("assistant_end", run_id=run_id)
        assert again.text(run_id) == "As before."
    finally:
        await again.leave()
    assert not model.asked("waiting")
    await assert_nothing_in_progress(empty_database_url, model, service)


async def is_told_that_its_past_is_another(service: Service, client: Client) -> None:
    address = service.address.replace("http", "ws", 1)
    query = f"after={client.position}&epoch={client.epoch}"
    async with connect(f"{address}/ws/chat/{client.session_id}?{query}") as socket:
        start, resync = [json.loads(await socket.recv()) for _ in range(2)]
    assert "replayed_from" not in start
    assert (resync["type"], resync["reason"], resync["epoch"]) == ("resync", "foreign_epoch", start["epoch"])
    assert start["epoch"] != client.epoch


async def test_the_database_of_its_own_is_backed_up_beside_the_service_and_restored_without_it(
    model: Narrator, start: StartService, tmp_path: Path
) -> None:
    model.tell("Hello", Text("Well."))
    service = await start(None)
    async with connected(service) as client:
        run_id = await client.ask("Hello")
        await client.until("assistant_end", run_id=run_id)
    data_dir, backup = tmp_path / "data", tmp_path / "backup.zip"
    code, output = await command("backup", str(backup), data_dir=data_dir)
    assert code == 0, output
    code, output = await command("restore", str(backup), data_dir=data_dir)
    assert (code, "Another Colloquy is using" in output) == (1, True)
    service.terminate()
    await service.ended()
    code, output = await command("restore", str(backup), data_dir=data_dir)
    assert (code, "The database is not empty" in output) == (1, True), output
    backup.with_name("torn.zip").write_bytes(backup.read_bytes()[:-100])
    code, output = await command("restore", "--replace", str(backup.with_name("torn.zip")), data_dir=data_dir)
    assert (code, "no whole backup" in output) == (1, True), output
    shutil.rmtree(data_dir)

    code, output = await command("restore", str(backup), data_dir=data_dir)
    assert code == 0, output
    service = await start(None)
    assert await service.history(client.session_id) == [("user", "Hello"), ("assistant", "Well.")]
    noted = (await service.request("GET", "/api/audit"))["items"]
    assert [entry["action"] for entry in noted] == ["database.restore"]
    service.terminate()
    await service.ended()
    await eventually(lambda: not list(tmp_path.glob("*.part")))
