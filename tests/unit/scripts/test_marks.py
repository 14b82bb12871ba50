"""Marks tell where a script is, and change nothing of what it does."""

import pytest

from services.scripts.marks import marked

SCRIPT = """
from __future__ import annotations
x = []
def f(n):
    "Says something."
    if n:
        x.append(n)
    else:
        x.append(0)
    return n
class A:
    y = f(1)
    def go(self):
        try:
            raise ValueError
        except ValueError:
            x.append("caught")
        finally:
            x.append("done")
for i in range(2): f(i)
while len(x) < 9:
    x.append(len(x)); é = "ü"; x.append(é)
match x:
    case [first, *_]:
        A().go()
"""


def test_a_marked_script_does_the_same() -> None:
    with_marks = marked(SCRIPT)
    assert with_marks
    plain: dict[str, object] = {}
    other: dict[str, object] = {}
    exec(SCRIPT, plain)
    exec(with_marks.source, other)
    assert other["x"] == plain["x"]
    assert isinstance(other[with_marks.variable], int)


@pytest.mark.parametrize(
    ("script", "line", "column"),
    [
        ("x = 1\n1 / 0", 2, 1),
        ("def f():\n    y = 2\n    return 1 / 0\nf()", 3, 5),
        ("class A:\n    def go(self):\n        self.x = 1 / 0\nA().go()", 3, 9),
        ("é = 'ü'; 1 / 0\nx = 1", 1, 10),
        ("for i in [1]:\n    if i:\n        1 / 0", 3, 9),
        ("try:\n    pass\nfinally:\n    1 / 0", 4, 5),
        ("with open(__import__('os').devnull) as f:\n    1 / 0", 2, 5),
        ("__at__ = 1\n1 / 0", 2, 1),
    ],
)
def test_the_mark_is_that_of_the_statement_that_was_under_way(script: str, line: int, column: int) -> None:
    with_marks = marked(script)
    assert with_marks
    names: dict[str, int] = {}
    with pytest.raises(ZeroDivisionError):
        exec(with_marks.source, names)
    assert with_marks.places[names[with_marks.variable]] == (line, column)


@pytest.mark.parametrize("script", ["x = (", "\0", "(" * 10_000, "-" * 100_000 + "1"])
def test_a_script_that_cannot_be_read_gets_no_marks(script: str) -> None:
    assert marked(script) is None
