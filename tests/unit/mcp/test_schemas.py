"""Schemas that a model server takes pass as they are; all others are refused, and quickly."""

import time
from typing import Any

import pytest

from services.mcp.schemas import UnusableSchema, checked
from tests.fakes.hostile_tools import LIES

SOUND: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"type": "integer"}}},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {}},
]


@pytest.mark.parametrize("schema", SOUND)
def test_a_sound_schema_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert checked(schema) == schema


def test_what_may_be_left_out_is_filled_in() -> None:
    assert checked({}) == {"type": "object", "properties": {}}


def test_a_property_that_is_called_ref_is_no_reference() -> None:
    schema = {"type": "object", "properties": {"$ref": {"type": "string"}}}

    assert checked(schema) == schema


@pytest.mark.parametrize("name", ["array", "typo", "enormous", "deep", "recursive", "elsewhere", "nowhere"])
def test_a_lie_is_refused(name: str) -> None:
    (lie,) = (tool for tool in LIES if tool["name"] == name)

    with pytest.raises(UnusableSchema):
        checked(lie["inputSchema"])


def test_references_that_fan_out_are_followed_once_each() -> None:
    (ladder,) = (tool for tool in LIES if tool["name"] == "ladder")
    begun = time.process_time()

    assert checked(ladder["inputSchema"]) == ladder["inputSchema"]

    assert time.process_time() - begun < 5  # each of them anew would be a million
