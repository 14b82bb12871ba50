"""`make secrets`: what `docker-compose.yml` asks for, made once and never changed."""

import os
import secrets
import sys
from pathlib import Path

_FOLDER = Path("secrets")
_NAMES = ("database_password", "secret_key")


def make_secrets(folder: Path = _FOLDER) -> list[Path]:
    """Make those that are missing, and return them.

    The folder keeps everybody else out. The files do not, because another user in a container has to read them.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return [path for name in _NAMES if _made(path := folder / name)]


def _made(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    os.fchmod(descriptor, 0o644)  # whatever the umask
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
    return True


if __name__ == "__main__":
    made = [str(path) for path in make_secrets()]
    sys.stdout.write(f"made {' and '.join(made)}\n" if made else "They are there already.\n")
