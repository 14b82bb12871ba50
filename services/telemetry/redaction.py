"""Takes secrets out of what is about to be said: those that are known, and whatever looks like one."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

HIDDEN = "***"

LONGEST = 16_384
"""Characters that are said of one text; the rest is only counted."""

_LOOKED_AT = LONGEST + 4_096  # a secret across the cut is still seen whole
_SHORTEST_SECRET = 8  # shorter ones, such as "ollama", are words before they are secrets
_DEEPEST = 4
_MOST_ITEMS = 50

_NAMES = r"passw(?:or)?d|passphrase|secret|token|ticket|api[_-]?key|secret[_-]?key|private[_-]?key|credentials?"
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAMES}|authorization|cookie|invitation|\bkey)$")

# Each alternative begins with fixed letters and repeats single classes up to a bound: the work is linear in the text.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(Bearer|Basic)\s{1,4}[\w.~+/=:-]{4,4096}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(?:sk|pk|rk|xai)-[\w*.…-]{4,512}|\b(?:gsk|clq|ghp|hf)_[\w.-]{4,512}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,4096}(?:\.[\w-]{0,4096}){0,4}"), HIDDEN),
    (re.compile(r"(://[^\s/:@\"']{0,256}:)[^\s\"'<>]{1,512}@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?i)(cookie[\"']?\s{0,4}[=:]\s{0,4})[^\r\n]{1,4096}"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"(?i)((?:{_NAMES}|authorization)\\?[\"']?\s{{0,4}}[=:]\s{{0,4}})"
            r"(?:b?\\?\"[^\"\r\n]{0,2048}\"?|b?'[^'\r\n]{0,2048}'?|[^\s,;&\"'})\]]{1,2048})"
        ),
        rf"\1{HIDDEN}",
    ),
)


class Redactor:
    """Knows the operator's secrets, in the forms in which they travel."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._forms: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """From now on hide these, too."""
        self._known |= {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(self._known, key=len, reverse=True)
        self._forms = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def clean(self, text: str) -> str:
        """`text` without secrets, and at most `LONGEST` characters of it."""
        cleaned = self._without_secrets(text[:_LOOKED_AT])
        return cleaned if len(text) <= LONGEST else f"{cleaned[:LONGEST]}… ({len(text)} characters)"

    def clean_end(self, text: str) -> str:
        """The same for a text whose end says most, such as a traceback."""
        cleaned = self._without_secrets(text[-_LOOKED_AT:])
        return cleaned if len(text) <= LONGEST else f"({len(text)} characters) …{cleaned[-LONGEST:]}"

    def clean_field(self, name: str, value: object, depth: int = _DEEPEST) -> object:
        """A value fit to be said under that name: numbers as they are, all else as text or as a few levels of JSON."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if _SECRET_NAME.search(name):
            return HIDDEN
        if depth and isinstance(value, Mapping):
            members = cast(Mapping[Any, Any], value)
            some = list(members.items())[:_MOST_ITEMS]
            return {self.clean(str(key)): self.clean_field(str(key), inner, depth - 1) for key, inner in some}
        if depth and isinstance(value, list | tuple | set | frozenset):
            some = list(cast(Iterable[Any], value))[:_MOST_ITEMS]
            return [self.clean_field("", inner, depth - 1) for inner in some]
        return self.clean(str(value))

    def _without_secrets(self, text: str) -> str:
        if self._forms is not None:
            text = self._forms.sub(HIDDEN, text)
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return text


def _forms(secret: str) -> Iterable[str]:
    """The secret as it is, in an address, in JSON, and inside base64 wherever it may stand there."""
    if len(secret) < _SHORTEST_SECRET:
        return
    yield secret
    yield quote(secret, safe="")
    yield secret.replace("\\", "\\\\").replace('"', '\\"')
    raw = secret.encode(errors="surrogatepass")
    for before in range(3):
        # What the bytes before and after decide is left out: what stays is the same whatever stands around.
        text = b64encode(bytes(before) + raw).rstrip(b"=").decode()
        core = text[(0, 2, 3)[before] : len(text) - (1 if (before + len(raw)) % 3 else 0)]
        yield core
        yield core.replace("+", "-").replace("/", "_")
