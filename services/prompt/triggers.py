"""Whether a module speaks: a pattern is nothing or `*` (always), `/expression/flags`, or keywords between bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.errors import InvalidRequest
from services.prompt.expressions import Expression, ExpressionSet, Refused
from services.prompt.keywords import KeywordIndex, Phrase, tokens

LONGEST_PATTERN = 1000


class InvalidTrigger(InvalidRequest):
    """The trigger pattern cannot be used."""

    code = "invalid_trigger"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, field="trigger_pattern")


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a module speaks: if the expression matches, or any of the keywords; always, if there is neither."""

    expression: Expression | None = None
    keywords: tuple[Phrase, ...] = ()

    @classmethod
    def compile(cls, pattern: str | None) -> "Trigger":
        """Read a pattern.

        Raises:
            InvalidTrigger: it is too long, names no keyword, has other flags than `i`, `s` and `m`, or is an
                expression that RE2 refuses; the message has RE2's own words.
        """
        pattern = (pattern or "").strip()
        if len(pattern) > LONGEST_PATTERN:
            raise InvalidTrigger(f"A trigger pattern has at most {LONGEST_PATTERN:,} characters.")
        if pattern in ("", "*"):
            return cls()
        closing = _closing_slash(pattern)
        if closing:
            return cls(expression=_expression(pattern[1:closing], pattern[closing + 1 :]))
        keywords = dict.fromkeys(tokens(keyword) for keyword in pattern.split("|") if keyword.strip())
        if not keywords:
            raise InvalidTrigger("Between the bars there is no keyword.")
        return cls(keywords=tuple(keywords))

    @property
    def is_always(self) -> bool:
        return self.expression is None and not self.keywords

    def matches(self, text: str) -> bool:
        """Whether this one matches; for many triggers a `TriggerSet` is faster by far."""
        return bool(TriggerSet({"": self}).matching([text]))


class TriggerSet:
    """All triggers of a turn, matched together. Immutable; safe to share between threads."""

    def __init__(self, triggers: Mapping[str, Trigger]) -> None:
        """`triggers` by the name of the module."""
        self._always = [name for name, trigger in triggers.items() if trigger.is_always]
        self._expressions = ExpressionSet(
            {name: trigger.expression for name, trigger in triggers.items() if trigger.expression is not None}
        )
        self._keywords = KeywordIndex(
            (name, keyword) for name, trigger in triggers.items() for keyword in trigger.keywords
        )

    def matching(self, texts: Sequence[str]) -> dict[str, int]:
        """The modules that speak, each with the position of the first text that its trigger matches.

        Give the newest text first: a module speaks if that position is less than its `trigger_depth`. Those that speak
        always have position 0, even without a text.
        """
        found = dict.fromkeys(self._always, 0)
        for position, text in enumerate(texts):
            for name in self._expressions.matching(text) | self._keywords.matching(text):
                found.setdefault(name, position)
        return found


def _closing_slash(pattern: str) -> int | None:
    """Where the last slash is that closes an expression: not the first character and not escaped."""
    if not pattern.startswith("/"):
        return None
    closing, position = None, 1
    while position < len(pattern):
        if pattern[position] == "/":
            closing = position
        position += 2 if pattern[position] == "\\" else 1
    return closing


def _expression(source: str, flags: str) -> Expression:
    if not source:
        raise InvalidTrigger("The expression between the slashes is empty; leave the pattern empty to match always.")
    if unknown := [flag for flag in flags if flag not in "ism"]:
        raise InvalidTrigger(f"The flags of an expression are i, s and m; {unknown[0]!r} is none of them.")
    expression = Expression(source, "".join(sorted(set(flags))) or "i")
    try:
        expression.check()
    except Refused as refused:
        raise InvalidTrigger(f"The expression cannot be used: {refused} (in RE2 syntax).") from None
    return expression
