"""Every statement of the stores is one that the schema of today understands."""

import ast
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

import db.stores

_METHODS = ("fetch", "fetchrow", "fetchval", "execute", "executemany")


def statements() -> Iterator[tuple[str, ast.expr]]:
    """Where each statement stands, and the expression that it is."""
    for path in sorted(Path(db.stores.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
                yield f"{path.stem}:{node.lineno}", node.args[0]


FOUND = dict(statements())


def test_there_is_something_to_prepare():
    assert len(FOUND) > 30
    assert {place.split(":")[0] for place in FOUND} >= {"events", "messages", "personas", "runs", "sessions", "users"}


@pytest.mark.parametrize("place", FOUND)
async def test_a_statement_is_a_constant_and_can_be_prepared(place: str, shared_database_url: str):
    expression = FOUND[place]
    assert isinstance(expression, ast.Constant), "SQL stands as a plain string in the method that runs it"
    assert isinstance(expression.value, str)
    connection = await asyncpg.connect(shared_database_url)
    try:
        await connection.prepare(expression.value)
    finally:
        await connection.close()
