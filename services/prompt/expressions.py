"""Regular expressions of users through RE2: linear in the text, bounded in memory, and many of them at once."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

_re2 = cast(Any, re2)  # carries no types

_MEMORY = 128 * 1024
"""Bytes that one expression may take, with what it remembers of the texts that it has seen."""
_SET_MEMORY = 8 * 1024 * 1024
"""The same for a set of expressions that are matched together."""
_SET_CHARACTERS = 32 * 1024
"""How much goes into one set at first."""


class Refused(Exception):
    """RE2 does not take this expression; the words are its own."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A regular expression in the syntax of RE2. `flags` are of `i`, `s` and `m`, each at most once."""

    source: str
    flags: str

    def check(self) -> None:
        """Raise `Refused` if RE2 would not take it."""
        options = _options(_MEMORY)
        options.case_sensitive = "i" not in self.flags
        options.dot_nl = "s" in self.flags
        try:
            _re2.compile(_normal(self.source), options)
        except _re2.error as refused:
            [words] = refused.args
            raise Refused(words.decode(errors="replace") if isinstance(words, bytes) else str(words)) from None
        except UnicodeEncodeError:
            raise Refused("invalid UTF-8") from None

    @property
    def pattern(self) -> str:
        """With its flags inside."""
        return f"(?{self.flags}){_normal(self.source)}" if self.flags else _normal(self.source)


class ExpressionSet:
    """Finds which of many expressions match a text.

    An expression that needs some literal text (`colou?r` needs "color" or "colour") is tried only where that occurs.
    The others are one automaton.
    """

    def __init__(self, expressions: Mapping[str, Expression]) -> None:
        """All of them must have passed their check; the names are those that `matching` reports."""
        self._matchers: list[_Matcher] = []
        waiting: list[_Named] = []
        for name, expression in expressions.items():
            waiting.append((name, expression.pattern))
            if sum(len(pattern) for _, pattern in waiting) > _SET_CHARACTERS:
                self._matchers += _matchers_of(waiting)
                waiting = []
        self._matchers += _matchers_of(waiting)

    def matching(self, text: str) -> set[str]:
        """The names of all expressions that match somewhere in the text."""
        data = _normal(text).encode("utf-8", "replace")
        return {name for matcher in self._matchers for name in matcher(data)}


_Named = tuple[str, str]
"""A name and a pattern."""
_Matcher = Callable[[bytes], list[str]]


class _TooMany(Exception):
    """They do not fit into the memory of one set."""


def _matchers_of(patterns: Sequence[_Named]) -> list[_Matcher]:
    """As few as the memory of a set allows."""
    if not patterns:
        return []
    try:
        return _as_sets(patterns)
    except _TooMany:
        half = len(patterns) // 2
        if not half:
            raise
        return [*_matchers_of(patterns[:half]), *_matchers_of(patterns[half:])]


def _as_sets(patterns: Sequence[_Named]) -> list[_Matcher]:
    everything = _filter_of(patterns)
    needs_nothing = frozenset[int](everything.Match(b"", potential=True) or ())
    if not needs_nothing:
        return [_tried(everything.Match, patterns)]
    together = [one for number, one in enumerate(patterns) if number in needs_nothing]
    filtered = [one for number, one in enumerate(patterns) if number not in needs_nothing]
    matchers = [_tried(_set_of(together).Match, together)]
    if filtered:
        matchers.append(_tried(_filter_of(filtered).Match, filtered))
    return matchers


# A set that is too large for its memory may be made without complaint, and then never match anything. So each has one
# more expression, on which it is tried before it is relied on.
_PROBE = "probe"


def _tried(match: Callable[[bytes], list[int] | None], patterns: Sequence[_Named]) -> _Matcher:
    names = [name for name, _ in patterns]
    if len(names) not in (match(_PROBE.encode()) or ()):
        raise _TooMany

    def matcher(data: bytes) -> list[str]:
        return [names[number] for number in match(data) or () if number < len(names)]

    return matcher


def _filter_of(patterns: Sequence[_Named]) -> Any:
    made = _re2.Filter()
    for _, pattern in patterns:
        made.Add(pattern, _options(_MEMORY))
    made.Add(_PROBE, _options(_MEMORY))
    return _compiled(made)


def _set_of(patterns: Sequence[_Named]) -> Any:
    made = _re2.Set.SearchSet(_options(_SET_MEMORY))
    for _, pattern in patterns:
        made.Add(pattern)
    made.Add(_PROBE)
    return _compiled(made)


def _compiled(made: Any) -> Any:
    try:
        made.Compile()
    except _re2.error:
        raise _TooMany from None
    return made


def _options(memory: int) -> Any:
    options = _re2.Options()
    options.max_mem = memory
    options.never_capture = True
    options.log_errors = False
    return options


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)
