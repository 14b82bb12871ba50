"""Marks in a script that tell which of its statements is under way."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Marked:
    """A script that keeps, in a global variable of that name, the number of the statement that is under way."""

    source: str
    variable: str
    places: tuple[tuple[int, int], ...]
    """Line and column of each statement, by its number, as in the script without marks."""


def marked(source: str) -> Marked | None:
    """The script with marks; None if it cannot be read."""
    variable = "__at__"
    while variable in source:
        variable += "_"
    try:
        tree = ast.parse(source)
        writer = _Writer(source, variable)
        tree.body = list(writer.statements(tree.body))
        return Marked(ast.unparse(ast.fix_missing_locations(tree)), variable, tuple(writer.places))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Writer:
    def __init__(self, source: str, variable: str) -> None:
        self._lines = source.splitlines()
        self._variable = variable
        self.places: list[tuple[int, int]] = []

    def statements(self, body: list[ast.stmt]) -> Iterator[ast.stmt]:
        """The statements, each after its mark."""
        for statement in body:
            if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
                yield self._mark(statement)
            self._enter(statement)
            yield statement

    def _enter(self, statement: ast.stmt) -> None:
        """Mark what is inside. What stands in a class itself is not marked: it runs once."""
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                self._enter(inner)
            return
        for part in (statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            for field in ("body", "orelse", "finalbody"):
                if body := getattr(part, field, None):
                    setattr(part, field, list(self.statements(body)))
        if isinstance(statement, _FUNCTIONS):
            statement.body.insert(0, ast.Global([self._variable]))

    def _mark(self, statement: ast.stmt) -> ast.stmt:
        before = self._lines[statement.lineno - 1].encode()[: statement.col_offset]
        self.places.append((statement.lineno, len(before.decode()) + 1))
        number = ast.Constant(len(self.places) - 1)
        return ast.Assign([ast.Name(self._variable, ast.Store())], number)
