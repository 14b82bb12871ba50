"""The examples of the README, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def first_conversation(port: int) -> str:
    """What the README's client prints against the service on that port."""
    return _printed(0, port)


def two_accounts(port: int) -> str:
    """What the README's two people print against the service with accounts on that port."""
    return _printed(1, port)


def _printed(number: int, port: int) -> str:
    """What the README's Python example of that number prints."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    code = examples[number].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    assert f":{port}" in code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
