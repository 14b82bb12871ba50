"""Controls are checked before they reach any provider."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidControl, UnknownControl
from services.providers.controls import CONTROLS, refuse_inexpressible, validate_controls


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("temperature", 0, 0),
        ("temperature", 2.0, 2.0),
        ("top_p", 0.5, 0.5),
        ("top_k", 40.0, 40),
        ("max_tokens", 1, 1),
        ("stop", "END", ["END"]),
        ("stop", ["a", "b"], ["a", "b"]),
        ("seed", -1, -1),
        ("presence_penalty", -2, -2),
        ("repeat_penalty", 1.1, 1.1),
        ("reasoning_effort", "minimal", "minimal"),
        ("verbosity", "low", "low"),
        ("response_format", "json", {"type": "json"}),
        ("response_format", {"type": "text"}, {"type": "text"}),
        (
            "response_format",
            {"type": "json_schema", "schema": {"type": "object"}},
            {"type": "json_schema", "name": "answer", "strict": True, "schema": {"type": "object"}},
        ),
        ("tool_choice", "required", "required"),
        ("tool_choice", {"name": "add"}, {"name": "add"}),
        ("parallel_tool_calls", False, False),
        ("num_ctx", 4096, 4096),
        ("keep_alive", "5m", "5m"),
        ("keep_alive", "1h30m", "1h30m"),
        ("keep_alive", -1, -1),
        ("thinking", True, True),
        ("thinking", "high", "high"),
        ("provider_options", {"mirostat": 2}, {"mirostat": 2}),
    ],
)
def test_good_values_are_kept_in_one_form(name: str, value: Any, kept: Any) -> None:
    assert validate_controls({name: value}) == {name: kept}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.1),
        ("temperature", "warm"),
        ("temperature", True),
        ("temperature", float("nan")),
        ("top_p", -0.1),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_tokens", float("inf")),
        ("stop", []),
        ("stop", ""),
        ("stop", ["a"] * 17),
        ("stop", [1]),
        ("reasoning_effort", "enormous"),
        ("response_format", "xml"),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "schema": {}, "name": "a b"}),
        ("response_format", []),
        ("tool_choice", "add"),
        ("tool_choice", {"name": "add", "more": 1}),
        ("parallel_tool_calls", 1),
        ("num_ctx", 0),
        ("keep_alive", "soon"),
        ("keep_alive", True),
        ("thinking", "enormous"),
        ("thinking", 1),
        ("provider_options", []),
        ("provider_options", {"x": float("nan")}),
        ("provider_options", {"x": {1, 2}}),
        ("provider_options", {"x": "a" * 70_000}),
        ("provider_options", {"temperature": 1}),
    ],
)
def test_a_bad_value_is_refused_by_name_with_what_would_be_right(name: str, value: Any) -> None:
    with pytest.raises(InvalidControl) as caught:
        validate_controls({name: value})
    assert caught.value.details["field"] == name
    assert caught.value.details["expected"] in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "messages",
        "input",
        "stream",
        "host",
        "base_url",
        "Base-URL",
        "api_key",
        "API_KEY",
        "headers",
        "extra_headers",
        "Authorization",
        "tools",
    ],
)
def test_provider_options_cannot_redirect_or_rewrite_a_request(name: str) -> None:
    with pytest.raises(InvalidControl):
        validate_controls({"provider_options": {name: "x"}})


def test_an_unknown_control_is_answered_by_the_known_ones_and_a_guess() -> None:
    with pytest.raises(UnknownControl) as caught:
        validate_controls({"temprature": 1})
    assert caught.value.details["known"] == sorted(CONTROLS)
    assert caught.value.details["did_you_mean"] == "temperature"
    assert "temperature?" in caught.value.message


def test_a_control_set_to_nothing_is_not_set() -> None:
    assert validate_controls({"temperature": None}) == {}


@given(
    st.dictionaries(
        st.sampled_from(sorted(CONTROLS)),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_whatever_comes_is_either_valid_or_refused_and_valid_stays_valid(raw: dict[str, Any]) -> None:
    try:
        valid = validate_controls(raw)
    except InvalidControl:
        return
    assert validate_controls(valid) == valid


def test_a_control_that_a_provider_cannot_express_is_refused_naming_both() -> None:
    with pytest.raises(InvalidControl, match="azure cannot express top_k") as caught:
        refuse_inexpressible(["temperature", "top_k"], {"temperature"}, "azure")
    assert caught.value.details["field"] == "top_k"


def test_hints_for_local_memory_are_let_go_elsewhere() -> None:
    refuse_inexpressible(["num_ctx", "keep_alive"], {"temperature"}, "azure")
