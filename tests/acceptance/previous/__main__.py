"""Writes down the statements of the stores in another checkout. See `tests.acceptance.previous`."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

_METHODS = ("fetch", "fetchrow", "fetchval", "execute", "executemany")


def statements(checkout: Path) -> Iterator[tuple[str, str]]:
    """Where each stands, and what it says."""
    for path in sorted((checkout / "db" / "stores").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr=name), args=[ast.Constant(value=str(said)), *_]):
                    if name in _METHODS:
                        yield f"{path.stem}:{node.lineno}", "\n".join(map(str.strip, said.strip().splitlines()))
                case _:
                    pass


if __name__ == "__main__":
    where = Path(sys.argv[1])
    schema = len(list((where / "db" / "migrations").glob("*.sql")))
    json.dump({"schema": schema, "statements": dict(statements(where))}, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
