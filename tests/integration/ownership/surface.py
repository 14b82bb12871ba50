"""Everything through which somebody could ask for what is not theirs, read from the service's own description."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from api.main import create_app
from api.openapi import openapi_document
from tests.service import local_settings

Where = Literal["path", "query", "body"]


@dataclass(frozen=True)
class Place:
    """One place in which an id stands: a parameter's name, or the way to a field of the body."""

    where: Where
    steps: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the id is called there."""
        return next(step for step in reversed(self.steps) if step != "0")


@dataclass(frozen=True)
class Operation:
    """One method of one path, and where ids stand in it."""

    id: str
    method: str
    path: str
    places: tuple[Place, ...]
    media_type: str | None

    @property
    def in_path(self) -> list[Place]:
        """The ids that its path has."""
        return [place for place in self.places if place.where == "path"]

    @property
    def elsewhere(self) -> list[Place]:
        """The ids that may stand in its query and its body."""
        return [place for place in self.places if place.where != "path"]

    @property
    def changes(self) -> bool:
        """Whether it does more than to read."""
        return self.method != "GET"


def operations() -> list[Operation]:
    """All that REST can do."""
    document = openapi_document(
        create_app(local_settings(), "postgresql://nobody@localhost/nothing"), has_accounts=True
    )
    schemas = document["components"]["schemas"]
    return [
        _operation(method.upper(), path, described, schemas)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]


def id_fields(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The ways to all fields of a JSON schema in which an id may stand."""
    return list(dict.fromkeys(_walk(schema, definitions, (), ())))


def _operation(method: str, path: str, described: Mapping[str, Any], schemas: Mapping[str, Any]) -> Operation:
    places = [
        Place(parameter["in"], (parameter["name"],))
        for parameter in described.get("parameters", [])
        if parameter["in"] == "path" or (parameter["in"] == "query" and _may_be_id(parameter["schema"]))
    ]
    content = described.get("requestBody", {}).get("content", {})
    for body in content.values():
        places += [Place("body", steps) for steps in id_fields(body["schema"], schemas)]
    return Operation(described["operationId"], method, path, tuple(places), next(iter(content), None))


def _may_be_id(schema: Mapping[str, Any]) -> bool:
    return any(option.get("format") == "uuid" for option in (schema, *schema.get("anyOf", [])))


_NAMES_OF_IDS = ("connection", "connection_id", "provider", "tool_call_id", "image", "image_path")
"""Fields that are no UUIDs by their type, and name things that belong to somebody all the same."""


def _walk(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], steps: tuple[str, ...], seen: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        if name not in seen:
            yield from _walk(definitions[name], definitions, steps, (*seen, name))
        return
    if schema.get("format") == "uuid" or (steps and steps[-1] in _NAMES_OF_IDS):
        yield steps
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _walk(option, definitions, steps, seen)
    for name, field in schema.get("properties", {}).items():
        yield from _walk(field, definitions, (*steps, name), seen)
    if isinstance(items := schema.get("items"), dict):
        yield from _walk(items, definitions, (*steps, "0"), seen)
