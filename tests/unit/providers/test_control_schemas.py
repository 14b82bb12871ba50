"""The JSON Schema of a control and its check say the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from services.providers.controls import CONTROLS

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**54),
    st.floats(-20, 20),
    st.sampled_from(["", "auto", "none", "required", "low", "high", "text", "json", "5m", "-1", "xhigh", "x" * 501]),
    st.lists(st.sampled_from(["", "stop", 1]), max_size=3),
    st.sampled_from([{"name": "tool"}, {"name": ""}, {"type": "json"}, {"type": "json_schema", "schema": {}}, {}]),
)


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "provider_options"])
@given(value=_VALUES)
def test_a_value_passes_both_or_neither(name: str, value: Any) -> None:
    control = CONTROLS[name]
    try:
        control.check(value)
    except ValueError:
        is_checked = False
    else:
        is_checked = True

    assert Draft202012Validator(dict(control.schema)).is_valid(value) == is_checked
