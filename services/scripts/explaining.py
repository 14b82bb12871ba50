"""Why a script ended early, in words for its author, and where."""

import re
from dataclasses import dataclass

from pydantic_monty import MontyCrashedError, MontyError, MontyRuntimeError, MontySyntaxError, SourceRange

from services.scripts.types import ScriptError, ScriptLimits
from services.scripts.values import bounded_text
from services.scripts.workers import own_words

_OVER_BYTES = re.compile(r"> (\d+) bytes")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `ctx` and where it stands."""

    function: str
    at: SourceRange


class Explainer:
    """Knows one script's text and limits."""

    def __init__(self, source: str, limits: ScriptLimits) -> None:
        self._source = source
        self._limits = limits

    def error_at(self, call: Call, kind: str, message: str) -> ScriptError:
        """An error of which the call is the place."""
        return ScriptError(kind, message, *(self._place(call.at) or (None, None)))

    def error_after(self, call: Call | None, kind: str, message: str) -> ScriptError:
        """An error whose place nobody knows: it is told with that of the newest call before it, and as such."""
        place = self._place(call.at) if call else None
        if call is None or place is None:
            return ScriptError(kind, message)
        line, column = place
        return ScriptError(kind, f"{message}, after ctx.{call.function[:64]}() in line {line}", line, column)

    def error_repeated(self, error: MontyError, line: int, column: int) -> ScriptError:
        """An error whose place was found by running the script once more."""
        told = self.explained(error, None)
        return ScriptError(told.type, f"{told.message}; run once more, it did so in this line", line, column)

    def could_be_located(self, error: MontyError) -> bool:
        """Whether the script was ended while it computed, without a place, by an interpreter that is still there."""
        return (
            isinstance(error, MontyRuntimeError)
            and isinstance(error.exception(), TimeoutError)
            and not error.traceback()
        )

    def explained(self, error: MontyError, newest: Call | None) -> ScriptError:
        """What the interpreter reports. It does not tell the place where a limit ended the script from outside."""
        match error:
            case MontyRuntimeError() | MontySyntaxError():
                kind = type(error.exception()).__name__
                message = bounded_text(self._in_our_words(kind, error.display("msg")))
                frames = [frame for frame in error.traceback() if frame.filename != "<string>"]
                if frames:
                    return ScriptError(kind, message, frames[-1].line, frames[-1].column)
                return self.error_after(newest, kind, message)
            case MontyCrashedError(timed_out=True):
                return self.error_after(newest, "TimeoutError", self._computed_too_long)
            case _:
                return ScriptError("WorkerLost", "the process that ran the script ended unexpectedly; run it again")

    def _place(self, at: SourceRange) -> tuple[int, int] | None:
        """Line and column. Inside eval() the place counts from the start of another text."""
        if at.filename == "<string>":
            return None
        before = self._source.encode()[: at.start].decode()
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def _in_our_words(self, kind: str, message: str) -> str:
        """The interpreter's message, or for limits and its own peculiarities one that says what to do."""
        limits = self._limits
        match kind:
            case "TimeoutError" if "time limit exceeded" in message:
                return self._computed_too_long
            case "MemoryError" if (over := _OVER_BYTES.search(message)) and int(over[1]) == limits.printed_bytes:
                return f"printed more than {limits.printed_bytes:,} bytes"
            case "MemoryError" if "memory limit" in message:
                return f"used more than {limits.memory_bytes / 2**20:g} MiB of memory"
            case "RuntimeError" if message.startswith("suspension limit"):
                return "asked too often for what does not exist"
            case "NotImplementedError" if "cannot suspend" in message:
                return "ctx cannot be called by sorted, map and the like: call it in a loop or a comprehension"
            case _:
                return own_words(message)

    @property
    def _computed_too_long(self) -> str:
        return f"computed for more than {self._limits.cpu_seconds:g} s"
