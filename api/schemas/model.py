"""What all bodies have in common, and the kinds of text and JSON that PostgreSQL can keep."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_METADATA_BYTES = 16_384
_DEEPEST_JSON = 32
_LONGEST_INTEGER = 2**63


class Body(BaseModel):
    """A JSON object of a request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, Any]:
        """The fields that the client sent, null among them; those left out are not here."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Answer(BaseModel):
    """A JSON object of a response."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _storable(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL characters")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must not contain lone surrogates")
    return value


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("cannot be null")
    return value


def _stripped(value: str) -> str:
    value = value.strip()
    if not value:
        raise ValueError("must not be blank")
    return value


class _AtMostBytes:
    """Refuses text that takes more bytes than that in UTF-8."""

    def __init__(self, bytes: int) -> None:
        self._bytes = bytes

    def __call__(self, value: str) -> str:
        if len(value.encode()) > self._bytes:
            raise ValueError(f"must have at most {self._bytes} bytes in UTF-8")
        return value


def at_most(bytes: int) -> tuple[Any, Any]:
    """Constraints for a text of at most so many bytes in UTF-8."""
    return Field(max_length=bytes), AfterValidator(_AtMostBytes(bytes))


Storable = AfterValidator(_storable)
Text = Annotated[str, Storable]
"""Any text that PostgreSQL can keep: it has no NUL, and UTF-8 has no lone surrogates."""

Name = Annotated[str, AfterValidator(_stripped), Storable, Field(max_length=200)]
"""A short text with something in it; spaces around it do not count."""

NotNull = BeforeValidator(_not_null)
"""For a field that may be left out but not be null."""


def _checked_json(value: Any) -> dict[str, Any]:
    _walk(value, _DEEPEST_JSON)
    return value


def _walk(value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"must not be nested deeper than {_DEEPEST_JSON}")
    match value:
        case str():
            _storable(value)
        case float() if not math.isfinite(value):
            raise ValueError("must not contain NaN or Infinity")
        case int() if not -_LONGEST_INTEGER <= value < _LONGEST_INTEGER:
            raise ValueError("must not contain integers of more than 64 bits")
        case dict():
            members = cast(Mapping[str, object], value)
            _walk_all(members, depth)
            _walk_all(members.values(), depth)
        case list():
            _walk_all(cast(list[object], value), depth)
        case _:
            pass


def _walk_all(values: Iterable[object], depth: int) -> None:
    for value in values:
        _walk(value, depth - 1)


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(value)) > _METADATA_BYTES:
        raise ValueError(f"must have at most {_METADATA_BYTES} bytes as JSON")
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_checked_json)]
"""A JSON object that PostgreSQL can keep as it is."""

Metadata = Annotated[JsonObject, AfterValidator(_small)]
"""A client's own notes: ours to keep, not to understand."""

Controls = Annotated[
    JsonObject,
    AfterValidator(_small),
    Field(examples=[{"temperature": 0.7, "max_tokens": 800}], description="Sampling controls, by name."),
]
