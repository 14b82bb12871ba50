"""Every tool has one name, whatever the server calls it."""

import re

from hypothesis import given
from hypothesis import strategies as st

from services.mcp.naming import qualified_name

POSSIBLE = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAMES = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]|_(?=[a-zA-Z0-9])){0,31}", fullmatch=True).filter(
    lambda name: len(name) <= 32
)


def test_a_name_that_is_possible_is_kept() -> None:
    assert qualified_name("time", "get_current_time") == "time__get_current_time"


def test_another_name_is_made_possible_and_stays_apart_from_its_neighbours() -> None:
    names = {qualified_name("files", tool) for tool in ("read file", "read/file", "read.file", "read_file")}

    assert len(names) == 4
    assert all(name.startswith("files__read_file") for name in names)


@given(NAMES, st.text(min_size=1, max_size=300))
def test_names_are_always_possible(server: str, tool: str) -> None:
    assert POSSIBLE.fullmatch(qualified_name(server, tool))
    assert qualified_name(server, tool) == qualified_name(server, tool)


@given(st.tuples(NAMES, st.text(min_size=1, max_size=80)), st.tuples(NAMES, st.text(min_size=1, max_size=80)))
def test_two_tools_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (qualified_name(*one) == qualified_name(*other)) == (one == other)
