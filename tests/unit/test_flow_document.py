"""The document that explains the code names nothing that does not exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "flow-of-a-message.md"
FLOORS = ("api", "websocket", "services", "db")


def names_in_code() -> set[str]:
    """Classes, functions and methods (`Class.method`) of the product."""
    names: set[str] = set()
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    names.add(node.name)
                if isinstance(node, ast.ClassDef):
                    inside = ast.iter_child_nodes(node)
                    methods = [one for one in inside if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                    names.update(f"{node.name}.{method.name}" for method in methods)
    return names


def spans() -> list[str]:
    return re.findall(r"`([^`]+)`", DOCUMENT.read_text())


def test_every_file_in_the_document_exists():
    paths = [span for span in spans() if "/" in span]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_class_and_method_in_the_document_exists():
    mentioned = [span for span in spans() if re.fullmatch(r"[A-Z]\w+(\.\w+)?", span)]
    assert len(mentioned) > 20
    known = names_in_code()
    assert [name for name in mentioned if name not in known] == []


def test_every_other_name_in_the_document_is_a_function_a_table_or_a_word_of_the_protocol():
    known = names_in_code()
    sources = "\n".join(path.read_text() for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
    words = [span for span in spans() if re.fullmatch(r"[a-z_]+", span)]
    assert [word for word in words if word not in known and word not in sources] == []
