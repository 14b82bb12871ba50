"""What does not fit a tool's schema is said in words that a model can use, whatever the schema is."""

import time
from typing import Any

import pytest

from services.tools.arguments import ArgumentCheck

SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "pattern": "^/[a-z]+$"},
        "mode": {"enum": ["r", "w"]},
        "deep": {"type": "array", "items": {"$ref": "#/$defs/number"}},
    },
    "required": ["path"],
    "additionalProperties": False,
    "$defs": {"number": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"path": "/etc"}, None),
        ({"path": "/etc", "mode": "r", "deep": [1, 2]}, None),
        ({}, "'path' is a required property"),
        ({"path": 1}, "path: 1 is not of type 'string'"),
        ({"path": "etc"}, "path: does not match '^/[a-z]+$'"),
        ({"path": "/etc", "mode": "x"}, "mode: 'x' is not one of ['r', 'w']"),
        ({"path": "/etc", "deep": [1, "two"]}, "deep/1: 'two' is not of type 'integer'"),
        ({"path": "/etc", "colour": "red"}, "Additional properties are not allowed ('colour' was unexpected)"),
    ],
)
def test_faults_name_the_place_and_what_is_wanted_there(arguments: dict[str, Any], wrong: str | None):
    assert ArgumentCheck(SCHEMA)(arguments) == wrong


def test_what_is_told_is_short_however_much_is_wrong():
    told = ArgumentCheck({"type": "object", "additionalProperties": {"type": "integer"}})(
        {f"name{n}": "x" * 10_000 for n in range(100)}
    )
    assert told is not None
    assert len(told) < 1_000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 7},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/nowhere"},
        {"properties": {"text": {"pattern": "(?<=look)behind"}}},
        {"properties": {"text": {"pattern": "("}}},
    ],
)
def test_a_schema_that_cannot_be_used_leaves_the_check_to_the_tool(schema: dict[str, Any]):
    assert ArgumentCheck(schema)({"text": "anything"}) is None


def test_a_hostile_pattern_costs_no_time():
    check = ArgumentCheck({"properties": {"text": {"pattern": "^(a+)+$"}}, "patternProperties": {"^(a+)+$": {}}})
    begun = time.monotonic()
    assert check({"text": "a" * 50_000 + "!", "a" * 50_000 + "!": 1}) is not None
    assert time.monotonic() - begun < 30  # backtracking would take longer than the universe has been there
