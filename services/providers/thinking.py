"""Reasoning that a server leaves inside the reply, between `<think>` and `</think>` at its start."""

from collections.abc import Callable

_State = Callable[[str], tuple[str, str]]

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkSplitter:
    """Splits a reply into thinking and text; both, joined, do not depend on where the pieces were cut.

    Tags count only at the very start of the reply, after white space at most. White space around the tags
    belongs to neither part.
    """

    __slots__ = ("_feed", "_held")

    def __init__(self) -> None:
        self._held = ""
        self._feed: _State = self._at_start

    @property
    def settled(self) -> bool:
        """From here on every piece is text as it stands."""
        return self._feed == self._in_text

    def feed(self, piece: str) -> tuple[str, str]:
        """The thinking and the text that `piece` brings to light; either may be empty."""
        return self._feed(piece)

    def end(self) -> tuple[str, str]:
        """What was held back because it could have become a tag."""
        held, self._held = self._held, ""
        return (held, "") if self._feed == self._in_thinking else ("", held)

    def _at_start(self, piece: str) -> tuple[str, str]:
        seen = self._held + piece
        visible = seen.lstrip()
        if visible.startswith(_OPEN):
            return self._enter(self._before_thinking, visible[len(_OPEN) :])
        if _OPEN.startswith(visible):
            self._held = seen
            return "", ""
        return self._enter(self._in_text, seen)

    def _before_thinking(self, piece: str) -> tuple[str, str]:
        piece = piece.lstrip()
        return self._enter(self._in_thinking, piece) if piece else ("", "")

    def _in_thinking(self, piece: str) -> tuple[str, str]:
        seen = self._held + piece
        thinking, tag, rest = seen.partition(_CLOSE)
        if tag:
            _, text = self._enter(self._before_text, rest)
            return thinking.rstrip(), text
        keep = _tail_to_hold(seen)
        self._held = seen[keep:]
        return seen[:keep], ""

    def _before_text(self, piece: str) -> tuple[str, str]:
        piece = piece.lstrip()
        return self._enter(self._in_text, piece) if piece else ("", "")

    def _in_text(self, piece: str) -> tuple[str, str]:
        return "", piece

    def _enter(self, state: _State, rest: str) -> tuple[str, str]:
        self._held = ""
        self._feed = state
        return state(rest)


def _tail_to_hold(seen: str) -> int:
    """Where the white space and the piece of a closing tag at the end of `seen` begin."""
    end = len(seen)
    for length in range(min(len(_CLOSE) - 1, end), 0, -1):
        if seen.endswith(_CLOSE[:length]):
            end -= length
            break
    return len(seen[:end].rstrip())
