"""A running llama-server: a model server that this project did not write, seen from outside."""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from tests.interop.build import PeerNotReadyError, model_path, server_path

MODEL = "tiny"

T = TypeVar("T")


@dataclass(frozen=True)
class LlamaServer:
    """What the tests may know of the server beside the API under test: its slots and its counters."""

    address: str
    key: str
    context: int
    """Tokens that one conversation may have, reply included."""
    process: subprocess.Popen[bytes]
    http: httpx2.Client

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def replies_in_progress(self) -> int:
        return sum(slot["is_processing"] for slot in self._slots())

    def prompts(self) -> list[str]:
        """The newest prompt of each slot, with the template applied: what the model really read."""
        return [slot["prompt"] for slot in self._slots() if "prompt" in slot]

    def tokens_generated(self) -> int:
        """Tokens of all replies so far, stopped ones included. A reply is counted when it is over."""
        found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", self._get("/metrics").text, re.MULTILINE)
        assert found, "this llama-server counts its tokens under another name"
        return int(found[1])

    def wait_until_idle(self, within: float) -> None:
        eventually(lambda: self.replies_in_progress() == 0, "llama-server to be idle", within)

    def kill(self) -> None:
        """Vanish without a goodbye: every open stream breaks off."""
        self.process.kill()
        self.process.wait()

    def _slots(self) -> list[dict[str, Any]]:
        return self._get("/slots").json()

    def _get(self, path: str) -> httpx2.Response:
        return self.http.get(path).raise_for_status()


@contextmanager
def llama_server(log: Path, *, context: int, slots: int = 4) -> Iterator[LlamaServer]:
    """Start llama-server on a free port and yield it when it is healthy; stop it at the end.

    `context` is per slot, and a slot is one reply at a time. Raises `PeerNotReadyError` if it was never built.
    """
    if not (server_path().exists() and model_path().exists()):
        raise PeerNotReadyError(PeerNotReadyError.__doc__)
    key = secrets.token_urlsafe()
    # fmt: off
    command = [server_path(), "--model", model_path(), "--alias", MODEL, "--api-key", key, "--metrics",
               "--host", "127.0.0.1", "--port", "0", "--threads", "1",
               "--parallel", str(slots), "--ctx-size", str(slots * context)]
    # fmt: on
    # The variable makes /slots show the prompts.
    environment = os.environ | {"LLAMA_SERVER_SLOTS_DEBUG": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in command], env=environment, stdout=output, stderr=output)
    try:
        address = eventually(lambda: announced_address(process, log), "llama-server to listen", within=20)
        with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as http:
            eventually(lambda: http.get("/health").is_success, "llama-server to be healthy", within=20)
            yield LlamaServer(address, key, context, process, http)
    finally:
        stop(process)


def announced_address(process: subprocess.Popen[bytes], log: Path) -> str | None:
    said = log.read_text(errors="replace")
    if process.poll() is not None:
        raise PeerNotReadyError(f"llama-server ended with {process.returncode}:\n{said[-2000:]}")
    found = re.search(r"listening on (http://\S+)", said)
    return found[1] if found else None


def stop(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    """Ask a process to end, and end it if it does not."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def eventually(condition: Callable[[], T | None], what: str, within: float) -> T:
    """The condition's value as soon as it is true; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within} s for {what}"
        time.sleep(0.01)
    return value
