"""Schemas of tools' parameters, made harmless: a model server refuses a whole request for one bad schema in it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator, SchemaError

_MOST_BYTES = 32_768
_DEEPEST = 32


class UnusableSchema(Exception):
    """The schema cannot be shown to a model. The message says why."""


def checked(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema as an object's, unchanged but for what may be left out. Raises UnusableSchema.

    Takes some milliseconds: not for the event loop.
    """
    if len(_serialized(schema)) > _MOST_BYTES:
        raise UnusableSchema(f"it is larger than {_MOST_BYTES // 1024} KiB")
    if schema.get("type", "object") != "object":
        raise UnusableSchema("it describes no object")
    nodes = list(_nodes(schema))
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise UnusableSchema(f"it is no JSON Schema: {error.message[:200]}") from None
    except RecursionError:
        raise UnusableSchema("it is nested too deeply") from None
    _check_references(schema, nodes)
    return {"properties": dict[str, Any]()} | dict(schema) | {"type": "object"}


def _serialized(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema, ensure_ascii=True)
    except (ValueError, TypeError, RecursionError):
        raise UnusableSchema("it is nested too deeply") from None


def _nodes(schema: object) -> Iterator[dict[str, Any]]:
    """All objects in it."""
    waiting: list[tuple[object, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _DEEPEST:
            raise UnusableSchema("it is nested too deeply")
        if isinstance(node, dict):
            table = cast("dict[str, Any]", node)
            yield table
            waiting += [(value, depth + 1) for value in table.values()]
        elif isinstance(node, list):
            waiting += [(value, depth + 1) for value in cast("list[object]", node)]


def _check_references(schema: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> None:
    """References must lead somewhere in the schema, and never back to where they stand."""
    sound: set[str] = set()
    for reference in _references(nodes):
        _follow(schema, reference, (), sound)


def _references(nodes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for node in nodes:
        reference = node.get("$ref", node.get("$dynamicRef"))
        if isinstance(reference, str):
            yield reference


def _follow(schema: Mapping[str, Any], reference: str, above: tuple[str, ...], sound: set[str]) -> None:
    """Go where `reference` leads, unless that is known to be `sound`; `above` led to it."""
    if reference in sound:
        return
    if reference in above:
        raise UnusableSchema("it refers to itself")
    if len(above) > _DEEPEST:
        raise UnusableSchema("it is nested too deeply")
    for inner in _references(_nodes(_target(schema, reference))):
        _follow(schema, inner, (*above, reference), sound)
    sound.add(reference)


def _target(schema: Mapping[str, Any], reference: str) -> object:
    """What a reference within the schema (RFC 6901) leads to."""
    if not reference.startswith("#"):
        raise UnusableSchema("it refers to another document")
    place: Any = schema
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or name not in place:
            raise UnusableSchema(f"its reference {reference[:100]!r} leads nowhere")
        place = cast("dict[str, Any]", place)[name]
    return place
