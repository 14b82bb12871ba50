"""What the person sees: replies on the output, everything about them on the notices."""

import re
from collections.abc import Iterable
from typing import Literal, TextIO

from terminal.client import Event
from terminal.service import StoredMessage

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# Words of a model must not move the cursor, retitle the window or answer for the person: no control characters.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WHOSE = {
    "caller": "the request",
    "model": "the model",
    "provider": "the model server",
    "server": "the service",
}
_STOPPED_BY = {
    "message": "stopped, because another message came",
    "shutdown": "stopped, because the service was shut down",
    "recovery": "stopped, because the service broke off",
}
_ENDINGS = {
    "length": "the reply reached its greatest length",
    "max_turns": "the reply used up its calls to tools",
    "refusal": "the model refused",
}

_ARGUMENTS = 500
"""Characters of a call's arguments that are shown."""

Section = Literal["text", "thinking", "refusal"]


class Screen:
    """Two streams. A person's terminal gets thinking, colours and clean text; a pipe gets the replies and no more."""

    def __init__(self, output: TextIO, notices: TextIO) -> None:
        self._output = output
        self._notices = notices
        self._is_terminal = output.isatty()
        self._is_at_line_start = True
        self._section: Section = "text"

    def prompt(self) -> None:
        """Ask for a line."""
        self._end_line()
        self._write("> ")
        self._is_at_line_start = True  # the person's own line end follows

    def show(self, event: Event) -> None:
        """One event of the reply."""
        match event:
            case {"type": "text_delta", "delta": str(delta)}:
                self._say("text", delta)
            case {"type": "thinking_delta", "delta": str(delta)}:
                self._think(delta)
            case {"type": "refusal_delta", "delta": str(delta)}:
                self._say("refusal", delta)
            case {"type": "tool_start", "name": str(name)}:
                self.notice(f"calling {name}")
            case {"type": "approval_required", "name": str(name), "arguments": str(arguments), "reason": str(reason)}:
                self.notice(f"may {name} be called with {arguments[:_ARGUMENTS]}? {reason} (yes, no, always, never)")
            case {"type": "tool_done", "status": str(status)} if status != "completed":
                self.notice(f"the call {status}")
            case {"type": "interrupted", "by": str(by)}:
                self.notice(_STOPPED_BY.get(by, "stopped"))
            case {"type": "error"}:
                self.notice(explain(event))
            case {"type": "assistant_end", "finish_reason": str(reason)}:
                self._end(reason)
            case _:
                pass

    def notice(self, text: str) -> None:
        """Something about the conversation, on a line of its own."""
        if self._is_terminal:
            self._end_line()
        self._notices.write(self._dim(f"[{self._clean(text)}]") + "\n")
        self._notices.flush()

    def line(self, text: str) -> None:
        """Something that was asked for."""
        self._end_line()
        self._write(f"{self._clean(text)}\n")

    def messages(self, messages: Iterable[StoredMessage]) -> None:
        """A part of the history."""
        for message in messages:
            self.line(f"{'> ' if message.role == 'user' else ''}{message.content}")

    def _say(self, section: Section, delta: str) -> None:
        if section != self._section:
            self._end_line()
            self._section = section
        self._write(self._clean(delta))

    def _think(self, delta: str) -> None:
        if not self._is_terminal:
            return
        if self._section != "thinking":
            self._end_line()
            self._section = "thinking"
        self._write(self._clean(delta), dim=True)

    def _end(self, reason: str) -> None:
        self._end_line()
        self._section = "text"
        if reason in _ENDINGS:
            self.notice(_ENDINGS[reason])

    def _end_line(self) -> None:
        if not self._is_at_line_start:
            self._write("\n")

    def _write(self, text: str, *, dim: bool = False) -> None:
        if not text:
            return
        self._output.write(self._dim(text) if dim else text)
        self._output.flush()
        self._is_at_line_start = text.endswith("\n")

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_PLAIN}" if self._is_terminal else text

    def _clean(self, text: str) -> str:
        return _CONTROLS.sub("", text) if self._is_terminal else text


def explain(error: Event) -> str:
    """An error in one line: what happened, whose fault it is, whether to try again."""
    message = error.get("message", "Something failed.")
    whose = _WHOSE.get(str(error.get("whose")), "the service")
    again = "may help" if error.get("retryable") else "will not help"
    return f"{message} (fault of {whose}; trying again {again})"
