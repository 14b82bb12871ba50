"""Reading an operator's JSON: values of the expected kind, or a message that says where and what is wrong."""

import difflib
import re
from collections.abc import Mapping
from typing import cast

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class BadMcpConfig(Exception):
    """The file cannot be used. The message says where in it, and what to do."""


class Table:
    """One JSON object of the file: reads values of an expected type, and says where it stands if they are not."""

    def __init__(self, value: object, where: str, environment: Mapping[str, str] | None = None) -> None:
        """`where` begins all messages; `environment` has the values of `${NAME}` in texts. Raises BadMcpConfig."""
        self._where = where
        self._environment = environment or {}
        if not isinstance(value, dict):
            raise self.fault("must be an object: { ... }")
        self.table = cast("dict[str, object]", value)

    def fault(self, message: str) -> BadMcpConfig:
        """What to raise for something wrong in it."""
        return BadMcpConfig(f"{self._where}: {message}")

    def get(self, key: str, default: object = None) -> object:
        """A value as it is."""
        return self.table.get(key, default)

    def refuse_unknown(self, known: tuple[str, ...], suggestions: Mapping[str, str]) -> None:
        """Raise for a key that is not `known`; `suggestions` has what others call known ones."""
        for key in self.table:
            if key not in known:
                meant = suggestions.get(key) or next(iter(difflib.get_close_matches(key, known, n=1)), None)
                raise self.fault(f"there is no key {key!r}." + (f" Did you mean {meant!r}?" if meant else ""))

    def text(self, key: str) -> str | None:
        """A string, filled in from the environment; None where there is none."""
        value = self.get(key)
        return None if value is None else self._expanded(value, repr(key))

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings, filled in from the environment."""
        value = self.get(key, [])
        if not isinstance(value, list):
            raise self.fault(f"{key!r} must be a list of strings")
        items = cast("list[object]", value)
        return tuple(self._expanded(item, f"{key!r}, entry {at}") for at, item in enumerate(items, 1))

    def texts(self, key: str) -> dict[str, str]:
        """An object of strings, filled in from the environment."""
        table = Table(self.get(key, {}), f"{self._where}: {key!r}").table
        return {name: self._expanded(value, f"{name!r} in {key!r}") for name, value in table.items()}

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(f"{key!r} must be true or false")
        return value

    def choice(self, key: str, words: tuple[str, ...], default: str | None) -> str | None:
        """One of these words."""
        value = self.get(key, default)
        if value is not default and value not in words:
            raise self.fault(f"{key!r} must be one of {', '.join(words)}")
        return cast("str | None", value)

    def _expanded(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise self.fault(f"{what} must be a string")
        if "\0" in value:
            raise self.fault(f"{what} must not contain NUL")
        return _VARIABLE.sub(lambda match: self._variable(match, what), value)

    def _variable(self, match: re.Match[str], what: str) -> str:
        name, default = cast("tuple[str, str | None]", match.groups())
        value = self._environment.get(name) or default
        if value is None:
            raise self.fault(f"{what} needs the environment variable {name}, which is not set")
        return value
