"""What a fake model server does with one request, step by step. The same steps serve every protocol."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of reasoning, in the protocol's own field."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of a refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """A fragment of the tool call `index`. Protocols without fragments send the call when the turn ends."""

    index: int
    arguments: str = ""
    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The usage to report."""

    input: int
    output: int
    thinking: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The regular end of the answer, in the protocol's words ("stop", "length", "tool_calls", "content_filter")."""

    reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `gate` is set."""

    gate: asyncio.Event


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more until the client leaves. As the first step, not even the headers are sent."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Send the headers now, before the next step."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the TCP connection. As the first step, before any answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the HTTP response in good order, but without the protocol's own end."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that go out as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """An error inside the stream, as the protocol words it; the response ends after it."""

    message: str
    code: str = "server_error"


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with an HTTP error, worded as the protocol does. Only as the first step."""

    status: int
    message: str = "no"
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Body:
    """Answer with this body and nothing else. Only as the first step."""

    text: str
    content_type: str = "text/html"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Endless:
    """Repeat `text` as a delta every `seconds` until the client leaves."""

    text: str = "more "
    seconds: float = 0.01


Step = (
    Text
    | Thinking
    | Refusal
    | CallPart
    | Tokens
    | Finish
    | Wait
    | Pause
    | Hang
    | Headers
    | Cut
    | Stop
    | Raw
    | Fault
    | Status
    | Body
    | Endless
)

# Steps after which nothing of the answer follows.
Ending = Finish | Hang | Cut | Stop | Fault | Status | Body | Endless


@dataclass(frozen=True, slots=True)
class Script:
    """The steps of one answer. A script without an ending finishes with "stop", or "tool_calls" if it called one."""

    steps: tuple[Step, ...]
    cut_every: int = 0
    """If not 0, what is sent is cut into pieces of that many bytes, also in the middle of a character."""

    def complete(self) -> tuple[Step, ...]:
        """The steps with an ending and some usage."""
        if self.steps and isinstance(self.steps[-1], Ending):
            return self.steps
        counted = () if any(isinstance(step, Tokens) for step in self.steps) else (Tokens(10, max(len(self.steps), 1)),)
        called = any(isinstance(step, CallPart) for step in self.steps)
        return (*self.steps, *counted, Finish("tool_calls" if called else "stop"))


def call(index: int, name: str, arguments: Any, *, id: str = "") -> CallPart:
    """A tool call in one piece."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return CallPart(index, text, name, id or f"call_{index}")
