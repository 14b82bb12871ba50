"""What goes into a script's run and what comes out: frozen values, and the seam to whoever performs its calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from services.scripts.values import Json


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """What one run may use up."""

    cpu_seconds: float = 0.5
    """Time in which the script itself runs; waiting for the host is not counted."""
    timeout_ms: int = 2_000
    """Time in all, with every wait but those for a place to run and for other modules."""
    memory_bytes: int = 32 * 1024 * 1024
    recursion: int = 200
    host_calls: int = 500
    printed_bytes: int = 16 * 1024
    """Printed text; log lines have as much again."""
    output_bytes: int = 64 * 1024
    """All outputs together, as JSON."""
    source_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class ScriptError:
    """Why a script ended early. `line` and `column` count from 1; None where no place is known.

    Some limits end a script from outside, where nobody sees what it was about: then they are those of the newest call
    of `ctx` before it, or were found by running the script once more, and the message says so.
    """

    type: str
    message: str
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """All that a run left behind; after an error, what it had done until then. Safe to store as `text` and `jsonb`."""

    outputs: Mapping[str, Json]
    printed: str
    logs: tuple[str, ...]
    calls: int
    """Calls of `ctx`."""
    error: ScriptError | None
    duration_ms: float
    """Without the waits for a place to run."""


FaultKind = Literal["AttributeError", "NameError", "RuntimeError", "TypeError", "ValueError"]


class ScriptFault(Exception):
    """Raised inside the script as an exception of type `kind`; the script reads the message, so it holds no secrets."""

    def __init__(self, message: str, kind: FaultKind = "RuntimeError") -> None:
        self.message = message
        self.kind: FaultKind = kind
        super().__init__(message)


class ScriptHost(Protocol):
    """Performs what a script cannot do in its own process: it knows the session, the memory and the models."""

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Perform `ctx.<name>`; `arguments` has every declared parameter, checked, with defaults filled in.

        Parameters that the script named freely (`**controls`) come as one dictionary under `controls`. May be
        cancelled at any await.

        Raises:
            ScriptFault: the script is told, and may catch it.
            ColloquyError: likewise, as a RuntimeError with the error's message.
        """
        ...
