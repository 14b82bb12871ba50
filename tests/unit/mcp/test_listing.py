"""One bad tool costs its own place in the list, and nobody else's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types.methods import validate_server_result

from services.mcp.listing import PERMISSIVE, plain_tools

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = ("name", "title", "description", "inputSchema", "annotations", "outputSchema", "icons", "execution", "_meta")
SCHEMAS = JSON | st.fixed_dictionaries(
    {"type": st.just("object")}, optional={"properties": JSON, "required": JSON, "$schema": JSON, "$defs": JSON}
)


@given(
    st.lists(
        JSON
        | st.fixed_dictionaries(
            {"name": st.text(max_size=5)}, optional={key: SCHEMAS if "Schema" in key else JSON for key in KEYS[1:]}
        )
    )
)
def test_what_is_left_is_always_what_the_protocol_allows(listed: list[Any]) -> None:
    for version in ("2025-11-25", "2025-06-18"):
        validate_server_result("tools/list", version, {"tools": plain_tools(listed)})


def test_a_good_tool_keeps_what_is_said_of_it() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = {
        "name": "a",
        "title": "A",
        "description": "Does.",
        "inputSchema": schema,
        "annotations": {"readOnlyHint": True},
    }

    assert plain_tools([tool]) == [tool]


@pytest.mark.parametrize("schema", [None, [], {"type": "array"}, {"type": "object", "properties": ["a"]}])
def test_an_impossible_schema_becomes_a_permissive_one(schema: Any) -> None:
    assert plain_tools([{"name": "a", "inputSchema": schema}])[0]["inputSchema"] == PERMISSIVE


def test_what_has_no_name_is_left_out() -> None:
    assert [tool["name"] for tool in plain_tools([None, {}, {"name": 7}, "x", {"name": "good"}])] == ["good"]
