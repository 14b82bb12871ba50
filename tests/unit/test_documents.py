"""What documents refer to is there, and decisions are numbered one by one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def test_decisions_are_numbered_one_by_one_in_their_names_and_titles():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for path in DECISIONS:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name


def test_every_document_that_is_named_exists():
    missing: list[str] = []
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = path.read_text()
        named = [ROOT / name for name in re.findall(r"`(docs/[\w/-]+\.md)`", text)]
        linked = [path.parent / name for name in re.findall(r"\]\(([\w./-]+\.md)\)", text)]
        missing += [f"{path.name}: {one}" for one in (*named, *linked) if not one.exists()]
    assert missing == []
