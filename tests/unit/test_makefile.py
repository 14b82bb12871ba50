"""What `make` promises before anything is installed."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)


def test_make_alone_lists_every_target_that_people_use() -> None:
    listed = set(re.findall(r"^  make ([a-z-]+) ", make().stdout, re.MULTILINE))

    daily = {"help", "setup", "run", "dev", "test", "check", "bench", "chat", "lock", "clean"}
    operators = {"migrate", "backup", "verify", "restore", "rotate-keys", "secrets"}
    assert daily | operators <= listed


def test_every_target_that_is_not_a_file_is_listed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None

    assert sorted(declared[1].split()) == sorted(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def test_too_old_a_python_is_named_as_the_reason(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "requirements").mkdir()
    for name in ("uv.txt", "runtime.txt", "dev.txt"):
        (tmp_path / "requirements" / name).touch()

    answer = make("setup", f"PYTHON={old}", cwd=tmp_path)

    assert answer.returncode != 0
    assert "Colloquy needs Python 3.11 or newer" in answer.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_locks_pin_every_file_and_name_no_host() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        requirements = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", lock.read_text(), re.MULTILINE | re.DOTALL)
        assert requirements, lock
        assert all("==" in one and "--hash=sha256:" in one for one in requirements), lock
        assert "://" not in lock.read_text(), lock


def test_tests_run_on_the_versions_that_the_service_runs_on() -> None:
    runtime, dev = (pins((ROOT / "requirements" / name).read_text()) for name in ("runtime.txt", "dev.txt"))

    assert runtime.items() <= dev.items()


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([\w.]+)", lock, re.MULTILINE))
