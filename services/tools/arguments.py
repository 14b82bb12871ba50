"""Whether arguments fit a tool's schema, and what is wrong with them in words that a model can use."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import re2  # pyright: ignore[reportMissingTypeStubs]

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_re2 = cast(Any, re2)  # carries no types
_PATTERN_MEMORY = 128 * 1024
_MOST_FAULTS = 3
_FAULT_CHARACTERS = 300


class ArgumentCheck:
    """The check of one tool. Made in no time; the schema is read when it is first needed."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._validator: Validator | None = None

    def __call__(self, arguments: Mapping[str, Any]) -> str | None:
        """What is wrong with `arguments`; None if they fit, or if nobody can tell."""
        try:
            validator = self._validator = self._validator or _validator_of(self._schema)
            faults = [_told(error) for error in islice(validator.iter_errors(arguments), _MOST_FAULTS)]
        except Exception:  # noqa: BLE001 - a schema that cannot be used is the tool's fault, which checks for itself
            return None
        return "; ".join(faults) or None


def _told(error: Any) -> str:
    place = "/".join(str(step) for step in error.absolute_path)
    return f"{place}: {error.message}"[:_FAULT_CHARACTERS] if place else str(error.message)[:_FAULT_CHARACTERS]


def _validator_of(schema: Mapping[str, Any]) -> "Validator":
    # Imports that take a while, and that a service without tools does not need.
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    # An empty registry: nothing is ever fetched. Patterns of strangers are matched in linear time or not at all.
    extend, registry = cast(Any, validators).extend, cast(Any, Registry)()
    return extend(Draft202012Validator, _OWN)(dict(schema), registry=registry)


def _pattern(_: Any, pattern: str, instance: object, __: Any) -> Iterator[Any]:
    from jsonschema import ValidationError  # noqa: PLC0415

    if not isinstance(instance, str):
        return
    try:
        options = _re2.Options()
        options.log_errors, options.max_mem = False, _PATTERN_MEMORY
        matches = _re2.search(pattern, instance, options)
    except _re2.error:
        return
    if not matches:
        yield ValidationError(f"does not match {pattern!r}")


def _nothing(*_: Any) -> Iterator[Any]:
    return iter(())


_OWN = {"pattern": _pattern, "patternProperties": _nothing}
