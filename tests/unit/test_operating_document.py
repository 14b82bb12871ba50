"""The guide for operators names nothing that does not exist."""

import re
from pathlib import Path

from api.command_line import parsed
from api.settings import setting_names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operating.md").read_text()
FROM_ELSEWHERE = {"SIGTERM", "SIGINT", "SIGHUP"}


def test_every_setting_exists() -> None:
    names = set(re.findall(r"\b([A-Z][A-Z]+(?:_+[A-Z]+)+)\b", TEXT))
    known = set(setting_names())
    assert {"TIMEOUTS__DRAIN", "DATABASE_URL", "TRUSTED_PROXIES"} <= names
    unknown = {name for name in names - known if name.removesuffix("_FILE") not in known}
    assert unknown == set()


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z][a-z-]*)\b", TEXT)) - {"a", "and", "does"}
    assert {"backup", "restore", "verify", "migrate", "secrets", "soak"} <= named
    assert named <= targets


def test_every_command_can_be_typed() -> None:
    commands = [words.split() for words in re.findall(r"python -m api ([a-z-][^`\n,]*)", TEXT)]
    assert commands
    for words in commands:
        parsed(words)


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:docs|db)/[\w/.-]+)`", TEXT)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
