"""What all bodies have in common, and the kinds of text and JSON that PostgreSQL can keep."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import core_schema

from services.providers.controls import CONTROLS

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

Name = Annotated[
    str,
    AfterValidator(_stripped),
    Storable,
    Field(max_length=200, json_schema_extra={"minLength": 1, "pattern": r"\S"}),
]
"""A short text with something in it; spaces around it do not count."""


class _NotNull:
    """Refuses null, and leaves it out of the schema of what may be sent."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = handler(schema)
        kinds = [kind for kind in described.get("anyOf", ()) if kind != {"type": "null"}]
        return kinds[0] if len(kinds) == 1 else described

    @staticmethod
    def _check(value: object) -> object:
        if value is None:
            raise ValueError("cannot be null")
        return value


Flag = Annotated[bool, Field(strict=True)]
"""true or false, and neither 1 nor "yes"."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number, and no text that reads like one."""

NotNull = _NotNull()
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


class ControlValues(BaseModel):
    """What `Controls` may hold, for the OpenAPI document: there it is one type, whatever has such a field."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "title": cls.__name__,
            "description": "Sampling controls, by name.",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {"anyOf": [control.schema, {"type": "null"}], "description": control.about}
                for name, control in CONTROLS.items()
            },
        }


class _DescribedAs:
    """Checks a field by what its type says, and describes it as that model."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        # The first of a chain is what the document shows; here it lets everything through to the checks after it.
        shown = core_schema.no_info_wrap_validator_function(
            lambda value, _: value, handler.generate_schema(self._model)
        )
        return core_schema.chain_schema([shown, handler(source)])


Controls = Annotated[
    JsonObject,
    AfterValidator(_small),
    _DescribedAs(ControlValues),
    Field(examples=[{"temperature": 0.7, "max_tokens": 800}], description="Sampling controls, by name."),
]


def _not_a_number(value: object) -> object:
    if isinstance(value, str) and "T" not in value.upper():
        raise ValueError("must be a moment such as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_not_a_number),
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC)),
]
"""A moment of these two centuries, as ISO 8601 with an offset; no bare numbers."""
