"""Colloquy as its users start it: a process, spoken to over REST and a WebSocket."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

from tests.interop.peer import MODEL, eventually, stop

CHECKOUT = Path(__file__).resolve().parents[2]
PASSED_ON = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "XDG_CACHE_HOME"}

Event = dict[str, Any]


@dataclass(frozen=True)
class Colloquy:
    """A running service with a database of its own."""

    address: str
    http: httpx2.Client

    @contextmanager
    def chat(self) -> Iterator["Chat"]:
        """A new session and a socket on it."""
        session_id = self.http.post("/api/sessions", json={}).raise_for_status().json()["id"]
        with connect(f"{self.address.replace('http', 'ws', 1)}/ws/chat/{session_id}") as socket:
            chat = Chat(self.http, session_id, socket)
            assert chat.next_event()["type"] == "session_start"
            yield chat


@dataclass(frozen=True)
class Chat:
    """One session, as a client sees it."""

    http: httpx2.Client
    session_id: str
    socket: ClientConnection

    def say(self, content: str) -> None:
        self.socket.send(json.dumps({"type": "message", "content": content}))

    def interrupt(self) -> None:
        self.socket.send(json.dumps({"type": "interrupt"}))

    def next_event(self, within: float = 20) -> Event:
        return json.loads(self.socket.recv(timeout=within))

    def until(self, last: str, *, times: int = 1) -> list[Event]:
        """All events up to the `times`-th one of the type `last`."""
        events: list[Event] = []
        while sum(event["type"] == last for event in events) < times:
            events.append(self.next_event())
        return events

    def ask(self, content: str) -> list[Event]:
        """Say something and take all events of the reply."""
        self.say(content)
        return self.until("assistant_end")

    def stored(self) -> list[tuple[str, str]]:
        """Role and content of each stored message, oldest first."""
        listed = self.http.get(f"/api/sessions/{self.session_id}/messages").raise_for_status().json()["items"]
        return [(message["role"], message["content"]) for message in reversed(listed)]


def text_of(events: list[Event]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "text_delta")


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def types_of(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


def only(kind: str, events: list[Event]) -> Event:
    (found,) = (event for event in events if event["type"] == kind)
    return found


@contextmanager
def colloquy(home: Path, *, base_url: str, key: str, api: str) -> Iterator[Colloquy]:
    """Start the service against a model server and yield it when it is ready; stop it at the end.

    It starts in an empty directory with hardly any environment: a developer's `.env` and database stay untouched.
    """
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name in PASSED_ON} | {
        "PYTHONPATH": str(CHECKOUT),
        "PORT": str(port),
        "DATA_DIR": str(home / "data"),
        "SERVE_UI": "false",
        "DEFAULT_PROVIDER": "openai",
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": key,
        "OPENAI_DEFAULT_MODEL": MODEL,
        "OPENAI_API": api,
    }
    log = home / "service.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "api"]
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(base_url=address, timeout=20) as http:
            eventually(lambda: is_ready(process, http, log), f"the service to be ready (see {log})", within=120)
            yield Colloquy(address, http)
    finally:
        stop(process, patience=30)


def is_ready(process: subprocess.Popen[bytes], http: httpx2.Client, log: Path) -> bool:
    assert process.poll() is None, f"the service ended with {process.returncode}:\n{log.read_text()[-2000:]}"
    try:
        return http.get("/readyz").is_success
    except httpx2.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
