"""Values from a script: JSON and nothing else, made safe to walk, to store and to send.

A script's value can be small where it comes from and endless to walk (a list of a list that holds itself a hundred
times over), so nothing looks at it before `plain` has counted every visit.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from services.providers.text import clean_text

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 16
MAX_NODES = 5_000
MAX_CHARACTERS = 256 * 1024
MAX_INTEGER = 2**63 - 1
"""Larger ones are no longer numbers to most readers of JSON."""

MESSAGE_CHARACTERS = 2_000

_CUT_OFF = {"[...]", "{...}", "(...)", "set(...)", "<deeply nested>"}
"""What the interpreter puts in the place of a container that holds itself, or that is too deep to be handed over."""


class NotPlain(ValueError):
    """The value cannot be written as JSON."""


def plain(value: Any) -> Json:
    """A copy of `value` as JSON: tuples become lists, NUL is dropped, lone surrogates become U+FFFD.

    Raises:
        NotPlain: it holds something else, holds itself, or is too large; the message says which.
    """
    return _Walk().visit(value, 0)


def plain_each(values: Mapping[str, Any]) -> dict[str, Json]:
    """Like `plain` for each of the values; all of them together may be as large as one.

    Raises:
        NotPlain: one of them cannot be written as JSON, or they are too large.
    """
    walk = _Walk()
    return {name: walk.visit(value, 0) for name, value in values.items()}


def plain_text(text: str) -> str:
    """`text` without NUL, and with U+FFFD for lone surrogates."""
    return clean_text(text.replace("\0", ""))


def bounded_text(message: str) -> str:
    """The beginning of a message, as far as anybody would read it, as plain text."""
    return plain_text(message[:MESSAGE_CHARACTERS])


class _Walk:
    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._characters = MAX_CHARACTERS

    def visit(self, value: Any, depth: int) -> Json:
        self._nodes -= 1
        if self._nodes < 0:
            raise NotPlain(f"the value has more than {MAX_NODES:,} parts")
        match value:
            case None | bool():
                return value
            case str():
                return self._text(value, depth)
            case int():
                return _integer(value)
            case float():
                return _finite(value)
            case list() | tuple():
                items = cast(list[Any], value)
                return [self.visit(item, _deeper(depth)) for item in items]
            case dict():
                pairs = cast(dict[Any, Any], value)
                return {self._key(key): self.visit(item, _deeper(depth)) for key, item in pairs.items()}
            case _:
                raise NotPlain(f"{_kind(value)} cannot be written as JSON")

    def _text(self, text: str, depth: int) -> str:
        if depth and text in _CUT_OFF:
            raise NotPlain(f"the value holds itself or is nested too deeply (found {text!r} inside)")
        self._characters -= len(text)
        if self._characters < 0:
            raise NotPlain(f"the value has more than {MAX_CHARACTERS:,} characters")
        return plain_text(text)

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise NotPlain(f"keys must be text, not {_kind(key)}")
        # A key is never a stand-in for a container.
        return self._text(key, 0)


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise NotPlain(f"the value is nested more than {MAX_DEPTH} deep")
    return depth + 1


def _integer(value: int) -> int:
    if abs(value) > MAX_INTEGER:
        raise NotPlain("an integer has more than 63 bits")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise NotPlain(f"{value} is not a number in JSON")
    return value


def _kind(value: Any) -> str:
    """What the script's author would call the type; not all of them exist by that name on this side."""
    kind = type(value).__name__
    return "an object" if kind.startswith("Monty") or kind == "Ctx" else kind
