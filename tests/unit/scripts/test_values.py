"""What leaves a script is JSON that can be stored, or refused before it is walked to its end."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scripts.values import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, NotPlain, plain, plain_each

scalars = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.text())
    ),
    max_leaves=30,
)


@given(values)
def test_what_is_not_refused_survives_json_and_has_no_nul_and_no_lone_surrogate(value: Any) -> None:
    try:
        copy = plain(value)
    except NotPlain:
        return
    written = json.dumps(copy, allow_nan=False, ensure_ascii=False)
    assert json.loads(written) == copy
    assert "\0" not in written.encode().decode()
    assert "\\u0000" not in written


@pytest.mark.parametrize(
    ("value", "copy"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ("a\0b", "ab"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),
        ({"k\0": True}, {"k": True}),
        ("[...]", "[...]"),
        ({"[...]": 1}, {"[...]": 1}),
    ],
)
def test_values_are_made_plain(value: Any, copy: Any) -> None:
    assert plain(value) == copy


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not a number in JSON"),
        (float("inf"), "not a number in JSON"),
        ([-float("inf")], "not a number in JSON"),
        (2**63, "more than 63 bits"),
        (-(10**4000), "more than 63 bits"),
        (b"bytes", "bytes cannot be written as JSON"),
        ({1, 2}, "set cannot be written as JSON"),
        (1j, "complex cannot be written as JSON"),
        (object(), "cannot be written as JSON"),
        ({1: 2}, "keys must be text, not int"),
        ({None: 2}, "keys must be text, not NoneType"),
        (["[...]"], "holds itself"),
        ({"d": "{...}"}, "holds itself"),
        ([0] * MAX_NODES, "more than 5,000 parts"),
        ("x" * (MAX_CHARACTERS + 1), "more than 262,144 characters"),
        ({"x" * MAX_CHARACTERS: "y"}, "more than 262,144 characters"),
    ],
)
def test_values_that_json_cannot_hold_are_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(NotPlain, match=reason):
        plain(value)


def test_nesting_is_bounded() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = [value]
    assert plain(value) == value
    with pytest.raises(NotPlain, match="more than 16 deep"):
        plain([value])


def test_a_tree_of_shared_lists_is_refused_at_once() -> None:
    value: Any = [0] * 100
    for _ in range(14):
        value = [value] * 100
    begun = time.perf_counter()
    with pytest.raises(NotPlain, match="parts"):
        plain(value)
    assert time.perf_counter() - begun < 1


def test_the_budget_holds_for_all_values_together() -> None:
    half = "x" * (MAX_CHARACTERS // 2)
    assert plain_each({"a": half, "b": half})
    with pytest.raises(NotPlain, match="characters"):
        plain_each({"a": half, "b": half, "c": "x"})
