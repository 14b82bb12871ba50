"""Whether a tool may be used follows from what everybody says of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tools.grants import Grant, Nature, Words, is_enabled, remembered, verdict

TOOL = Nature("files", "remove")
DESTRUCTIVE = Nature("files", "remove", destructive=True)


def word(**tools: str) -> dict[str, Any]:
    return {"servers": {"files": {"tools": tools}}}


def every(grant: str, **tools: str) -> dict[str, Any]:
    return word(**{"*": grant, **tools})


@pytest.mark.parametrize(
    ("words", "tool", "grant"),
    [
        ([], TOOL, "auto"),
        ([], DESTRUCTIVE, "ask"),
        ([], Nature("files", "remove", operator="ask"), "ask"),
        ([], Nature("files", "remove", operator="auto", destructive=True), "auto"),
        ([word(remove="auto")], DESTRUCTIVE, "auto"),
        ([word(remove="ask")], TOOL, "ask"),
        ([word(remove="never")], TOOL, "never"),
        ([word(other="never")], TOOL, "auto"),
        ([{}, word(remove="never")], TOOL, "never"),
        ([word(remove="auto"), word(remove="never")], TOOL, "auto"),
        ([every("never")], TOOL, "never"),
        ([every("never", remove="auto")], TOOL, "auto"),
        ([every("auto"), word(remove="never")], TOOL, "auto"),
        ([word(remove="auto")], Nature("files", "remove", operator="ask"), "auto"),
        ([word(remove="auto")], Nature("files", "remove", operator="never"), "never"),
        ([word(remove="auto")], Nature("files", "remove", changed=True), "ask"),
        ([word(remove="never")], Nature("files", "remove", changed=True), "never"),
        ([{"servers": {"mail": {"tools": {"remove": "never"}}}}], TOOL, "auto"),
        ([{"servers": None}, {"servers": {"files": {"tools": None}}}], TOOL, "auto"),
    ],
)
def test_the_most_specific_word_counts(words: Words, tool: Nature, grant: Grant):
    said = verdict(words, tool)
    assert said.grant == grant
    assert bool(said.reason) == (grant == "ask")


@pytest.mark.parametrize(
    ("words", "default", "enabled"),
    [
        ([], True, True),
        ([], False, False),
        ([{"servers": {"files": {}}}], False, True),
        ([{"servers": {"files": {"enabled": False}}}], True, False),
        ([{"servers": {"files": {"enabled": True}}}, {"servers": {"files": {"enabled": False}}}], False, True),
        ([word(remove="auto"), {"servers": {"files": {"enabled": False}}}], True, False),
        ([{"servers": {"mail": {"enabled": False}}}], True, True),
    ],
)
def test_a_server_is_on_if_somebody_says_so_or_nobody_says_otherwise(words: Words, default: bool, enabled: bool):
    assert is_enabled(words, "files", default=default) == enabled


grants = st.sampled_from(["auto", "ask", "never"])
names = st.sampled_from(["files", "mail", "*", "remove"])
fields = st.fixed_dictionaries(
    {},
    optional={
        "servers": st.dictionaries(
            names,
            st.fixed_dictionaries({}, optional={"enabled": st.booleans(), "tools": st.dictionaries(names, grants)}),
        )
    },
)


@given(fields, names, st.sampled_from(["read", "remove"]), grants)
def test_a_remembered_word_counts_and_leaves_the_others_as_they_were(
    field: dict[str, Any], server: str, tool: str, grant: Grant
):
    after = remembered(field, server, tool, grant)
    assert verdict([after], Nature(server, tool)).grant == grant
    for other in ("files", "mail", "*", "remove"):
        for name in ("read", "remove", "write"):
            if (other, name) != (server, tool):
                assert verdict([after], Nature(other, name)) == verdict([field], Nature(other, name))
        if other != server:
            assert is_enabled([after], other, default=False) == is_enabled([field], other, default=False)
