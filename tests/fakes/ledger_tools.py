"""A tool server that writes down what it does: a program that speaks the protocol's older kind over its pipes.

Its argument is a directory. There `ledger` has a line for everything that acted, in order; `wait` goes on as soon as
the file that it is told of is there.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOME = Path(sys.argv[1])

_TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS: list[dict[str, Any]] = [
    {"name": "note", "description": "Write a note.", "inputSchema": _TEXT},
    {"name": "wait", "description": "Wait for a file.", "inputSchema": _TEXT},
    {
        "name": "remove",
        "description": "Remove something.",
        "inputSchema": _TEXT | {"additionalProperties": False},
        "annotations": {"destructiveHint": True},
    },
    {
        "name": "talk",
        "description": "Talk for long.",
        "inputSchema": {"type": "object", "properties": {"characters": {"type": "integer"}}},
        "annotations": {"readOnlyHint": True},
    },
]

_writing = threading.Lock()
_cancelled: dict[object, threading.Event] = {}


def act(line: str) -> None:
    """Write down something that cannot be undone."""
    with (HOME / "ledger").open("a") as ledger:
        ledger.write(line + "\n")


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                version = message["params"]["protocolVersion"]
                info = {"name": "ledger", "version": "1"}
                result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
                send({"id": message["id"], "result": result})
            case "tools/list":
                send({"id": message["id"], "result": {"tools": TOOLS}})
            case "tools/call":
                _cancelled[message["id"]] = threading.Event()
                threading.Thread(target=call, args=(message,), daemon=True).start()
            case "notifications/cancelled":
                if stop := _cancelled.get(message["params"]["requestId"]):
                    stop.set()
            case str() if "id" in message:
                send({"id": message["id"], "error": {"code": -32601, "message": "unknown"}})
            case _:
                pass


def call(message: dict[str, Any]) -> None:
    """Do what is asked, and answer unless the caller has gone."""
    params = message["params"]
    arguments = params.get("arguments") or {}
    text = str(arguments.get("text", ""))
    match params["name"]:
        case "talk":
            answer(message, "\n".join(f"line {n}" for n in range(arguments.get("characters", 0) // 8)))
        case "wait":
            act(f"begun {text}")
            progress(message, text)
            if stopped(message, HOME / text):
                act(f"cancelled {text}")
                return
            act(f"ended {text}")
            answer(message, f"{text} is there")
        case name:
            act(f"{name} {text}")
            answer(message, f"{name} done: {text}")


def stopped(message: dict[str, Any], file: Path) -> bool:
    """Wait for the file; whether the call was cancelled before it came."""
    stop = _cancelled[message["id"]]
    while not file.exists():
        if stop.is_set():
            return True
        time.sleep(0.005)
    return False


def progress(message: dict[str, Any], text: str) -> None:
    """Say how far it has come, if the caller wants to know."""
    token = message["params"].get("_meta", {}).get("progressToken")
    if token is not None:
        params = {"progressToken": token, "progress": 1, "total": 2, "message": f"waiting for {text}"}
        send({"method": "notifications/progress", "params": params})


def answer(message: dict[str, Any], text: str) -> None:
    """The result of a call."""
    send({"id": message["id"], "result": {"content": [{"type": "text", "text": text}]}})


def send(message: dict[str, Any]) -> None:
    """One line."""
    data = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
    with _writing:
        os.write(1, data)


if __name__ == "__main__":
    main()
