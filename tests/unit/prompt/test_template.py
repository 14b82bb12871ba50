"""What in a text is a reference, and what is only text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.prompt.template import Misnamed, ModuleRef, Node, OutputRef, Template, Text, Variable, parse

pieces = st.sampled_from(
    [
        "@",
        "{",
        "}",
        "${",
        "\\",
        "a",
        "user",
        "user_profile",
        "User",
        ".",
        " ",
        "\n",
        "é",
        "e\u0301",
        "9",
        "_",
        "@{a}",
        "${a}",
    ]
)
texts = st.lists(pieces | st.text(max_size=3), max_size=30).map("".join)


def source(node: Node) -> str:
    return node.text if isinstance(node, Text) else node.source


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("@", "\\@").replace("${", "\\${")


def module(name: str) -> ModuleRef:
    return ModuleRef(name, f"@{name}")


def braced(name: str) -> ModuleRef:
    return ModuleRef(name, f"@{{{name}}}")


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("@user", [module("user")]),
        ("(@user)", [Text("("), module("user"), Text(")")]),
        ("@user.", [module("user"), Text(".")]),
        ("@user_profile", [module("user_profile")]),
        ("@userName", [module("user"), Text("Name")]),
        ("a@{user}", [Text("a@{user}")]),
        ("@{user}s", [braced("user"), Text("s")]),
        ("@{a}@{b}@c", [braced("a"), braced("b"), module("c")]),
        ("@a@b", [module("a"), Text("@b")]),
        ("${now}@b", [Variable("now", "${now}"), module("b")]),
        ("x${now}y", [Text("x"), Variable("now", "${now}"), Text("y")]),
        ("$${now}", [Text("$"), Variable("now", "${now}")]),
        ("${user.name}", [Variable("user.name", "${user.name}")]),
        ("${user.mood}", [OutputRef("user", "mood", "${user.mood}")]),
        ("❤\ufe0f@user", [Text("❤\ufe0f"), module("user")]),
        ("“@user”", [Text("“"), module("user"), Text("”")]),
    ],
)
def test_references_are_found(text: str, nodes: list[Node]) -> None:
    assert list(parse(text).nodes) == nodes


@pytest.mark.parametrize("before", [*"aZ9_.%+-@", "é", "e\u0301", "字", "٣", "ß"])
def test_an_at_sign_after_this_is_text(before: str) -> None:
    text = f"{before}@user"
    assert parse(text) == Template((Text(text),))


def test_a_mail_address_is_text() -> None:
    text = "Write to first.last+tag@example.com or 50%@example.com."
    assert parse(text) == Template((Text(text),))


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        (r"\@user", [Text("@user")]),
        (r"\${now}", [Text("${now}")]),
        (r"\\", [Text("\\")]),
        (r"\\@user", [Text("\\"), module("user")]),
        (r"\\\@user", [Text(r"\@user")]),
        (r"\@@user", [Text("@@user")]),
        (r"\${@user", [Text("${"), module("user")]),
        (r"\n \$ \{", [Text(r"\n \$ \{")]),
        (r"a\\@{b}", [Text("a\\"), braced("b")]),
        ("\\", [Text("\\")]),
    ],
)
def test_escapes_are_consumed_first(text: str, nodes: list[Node]) -> None:
    assert list(parse(text).nodes) == nodes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("@User", "User"),
        ("@{User}", "User"),
        ("@{a user}", "a user"),
        ("@{ user }", " user "),
        ("@{}", ""),
        ("@9lives", "9lives"),
        ("@_x", "_x"),
        ("@été", "été"),
        ("@" + "a" * 51, "a" * 51),
        ("${Now}", "Now"),
        ("${ now }", " now "),
        ("${a.b.c}", "a.b.c"),
    ],
)
def test_what_looks_like_a_reference_but_can_be_no_name_stays_as_written(text: str, name: str) -> None:
    assert parse(text) == Template((Misnamed(name, text),))


def test_the_longest_name_has_fifty_characters() -> None:
    assert parse("@" + "a" * 50).references == ("a" * 50,)


@pytest.mark.parametrize("text", ["@", "@ user", "${", "${now", "@{user", "$now", "$ {now}", "}", "@{a\nb}", ""])
def test_what_is_not_complete_is_text(text: str) -> None:
    assert [source(node) for node in parse(text).nodes] == ([text] if text else [])
    assert parse(text).references == ()


def test_a_reference_within_something_that_is_none_is_found() -> None:
    assert parse("@{see @user}").references == ("user",)


def test_references_are_listed_once_in_order() -> None:
    assert parse("@b @a ${c.x} @b @{a} ${now} @Big").references == ("b", "a", "c")


@given(texts)
def test_any_text_can_be_read_and_only_backslashes_are_lost(text: str) -> None:
    template = parse(text)
    again = "".join(source(node) for node in template.nodes)
    assert len(again) <= len(text)
    assert again.replace("\\", "") == text.replace("\\", "")


@given(texts)
def test_neighbouring_texts_are_one_and_none_is_empty(text: str) -> None:
    nodes = parse(text).nodes
    assert all(node.text for node in nodes if isinstance(node, Text))
    assert not any(isinstance(a, Text) and isinstance(b, Text) for a, b in pairwise(nodes))


@given(texts)
def test_an_escaped_text_stands_for_itself(text: str) -> None:
    assert parse(escape(text)) == Template((Text(text),) if text else ())


@given(texts, texts)
def test_what_comes_later_does_not_change_what_was_read(first: str, second: str) -> None:
    whole = parse(f"{first}\n{second}").nodes
    assert "".join(map(source, whole)).startswith("".join(map(source, parse(f"{first}\n").nodes)))


@given(texts)
def test_a_text_without_references_is_the_text_without_its_escapes(text: str) -> None:
    harmless = text.replace("@", "").replace("${", "")
    expected = harmless.replace("\\\\", "\\")
    assert "".join(map(source, parse(harmless).nodes)) == expected


@pytest.mark.parametrize(
    "unit",
    ["@{", "${", "\\", "@", "@a", "@{a", "${a", "e\u0301@", "\u0301", "@{a}", "${a.b}", "a@", "\\@", "@A", "@{a\n"],
    ids=ascii,
)
def test_reading_hostile_texts_takes_linear_time(unit: str) -> None:
    # Were any of these quadratic, the time limit of a test would not suffice.
    text = unit * (500_000 // len(unit))
    assert sum(len(source(node)) for node in parse(text).nodes) <= len(text)
