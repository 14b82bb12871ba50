"""What the operating system adds around a process that works on what strangers sent: a script, a document.

Such a process needs no network and next to no files. Should what it works on ever take it over, it has neither: where
Linux allows it, it runs in a root of its own, without network and privileges, and dies with us. Which of that is to be
had depends on the machine, so each level is tried out before it is used.
"""

import asyncio
import itertools
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PATIENCE = 5.0
"""Seconds for a level to prove that it works here."""

# Address space is not memory: an interpreter reserves far more than it uses, and is itself told how much that may be.
_LIMITS = ("--as=4294967296", "--nofile=64", "--core=0", "--fsize=0")

_NAMESPACES = ("--user", "--net", "--ipc", "--uts", "--mount")

_POWERLESS = ("--pdeathsig", "KILL", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")

# A shell tells those whom it starts where it is.
_NOWHERE = "cd / && unset PWD OLDPWD"


class Hardening(StrEnum):
    """How far a process is shut in, from the outside."""

    CONTAINED = "contained"
    """Own root directory, no network, no privileges."""
    OFFLINE = "offline"
    """No network, no privileges; files are visible that everybody on the machine can read."""
    LIMITED = "limited"
    """No new privileges, limited resources."""
    NONE = "none"
    """A process like any other: only the program's own walls."""

    @property
    def meaning(self) -> str:
        """For an operator: the level, and what it keeps from the process."""
        match self:
            case Hardening.CONTAINED:
                kept = "own root directory, no network, no privileges"
            case Hardening.OFFLINE:
                kept = "no network, no privileges; the machine's public files can be seen"
            case Hardening.LIMITED:
                kept = "no new privileges, limited resources; network and files can be reached"
            case Hardening.NONE:
                kept = "the operating system adds nothing to the program's own walls"
        return f"processes are {self} ({kept})" if self is not Hardening.NONE else f"processes are not hardened: {kept}"


@dataclass(frozen=True, slots=True)
class Program:
    """A program to be shut in, all that it has to see for its work, and how it shows that it does work."""

    binary: Path
    inside: Path
    """Where it stands in a root of its own."""
    sees: tuple[Path, ...] = ()
    """Files and directories beside the system's libraries, in their places."""
    proof: tuple[str, ...] = ("--version",)
    """What it is asked."""
    answer: bytes = b""
    """How it answers, to begin with."""


async def harden(program: Program, directory: Path) -> tuple[Hardening, Path]:
    """The strongest level that works here, and the command that starts it in there; `directory` must outlive it."""
    for level, script in await asyncio.to_thread(_wrappers, program, directory):
        wrapper = directory / "worker"
        await asyncio.to_thread(_write, wrapper, script)
        if await _works(wrapper, program):
            return level, wrapper
    return Hardening.NONE, program.binary


def _write(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(script)
    path.chmod(0o700)


async def _works(wrapper: Path, program: Program) -> bool:
    """Whether it answers from inside."""
    try:
        process = await asyncio.create_subprocess_exec(
            wrapper,
            *program.proof,
            env={},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode == 0 and said.startswith(program.answer)


def _wrappers(program: Program, directory: Path) -> list[tuple[Hardening, str]]:
    """Shell scripts that become the program, the strongest first, as far as the tools are there."""
    tools = _Tools()
    if sys.platform != "linux" or not tools.has("nice", "prlimit"):
        return []
    wrappers: list[tuple[Hardening, str]] = []
    if tools.has("bwrap"):
        wrappers.append((Hardening.CONTAINED, _script(tools, _in_a_bubble(tools, program))))
    if tools.has("setpriv", "unshare", "mount", "chroot"):
        wrappers.append((Hardening.CONTAINED, _script(tools, _in_an_own_root(tools, program, directory))))
    if tools.has("setpriv", "unshare"):
        nobody = ("--map-user=65534", "--map-group=65534")
        powerless = tools.command("setpriv", *_POWERLESS, program.binary)
        offline = [*tools.command("unshare", *_NAMESPACES, *nobody), *powerless]
        wrappers.append((Hardening.OFFLINE, _script(tools, offline)))
    if tools.has("setpriv"):
        nobody = ("--reuid=65534", "--regid=65534", "--clear-groups")
        # Only root can become nobody, or give up what others do not have.
        powers = ((*_POWERLESS, *nobody), ("--pdeathsig", "KILL", "--no-new-privs"))
        limited = [tools.command("setpriv", *words, program.binary) for words in powers]
        wrappers += [(Hardening.LIMITED, _script(tools, command)) for command in limited]
    return wrappers


class _Tools:
    """The programs of this machine by their whole paths: a worker's environment is empty."""

    def __init__(self) -> None:
        names = ("bwrap", "chroot", "mount", "nice", "prlimit", "setpriv", "unshare")
        self._paths = {name: path for name in names if (path := shutil.which(name))}

    def has(self, *names: str) -> bool:
        return self._paths.keys() >= set(names)

    def command(self, name: str, *words: str | Path) -> list[str]:
        return [self._paths[name], *map(str, words)]


def _in_a_bubble(tools: _Tools, program: Program) -> list[str]:
    readable = [("--ro-bind", path.resolve(), path) for path in (*_libraries(), *program.sees)]
    return [
        *tools.command("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--chdir", "/"),
        *map(str, itertools.chain(("--ro-bind", program.binary, program.inside), *readable)),
        str(program.inside),
    ]


def _in_an_own_root(tools: _Tools, program: Program, directory: Path) -> list[str]:
    """The same with tools that every Linux has: a shell mounts a few entries, moves in, and gives up its powers."""
    root = directory / "root"
    inside = {path.relative_to("/"): path for path in (*_libraries(), *program.sees)}
    inside |= {
        program.inside.relative_to("/"): program.binary,
        Path("setpriv"): Path(tools.command("setpriv")[0]),
    }
    mount = shlex.join(tools.command("mount", "--all", "--fstab", _lay_out(root, inside)))
    enter = shlex.join([*tools.command("chroot", root), "/setpriv", *_POWERLESS, str(program.inside)])
    build = f'{_NOWHERE}\n{mount} && exec {enter} "$@"'
    return [*tools.command("unshare", *_NAMESPACES, "--map-root-user"), "/bin/sh", "-c", build, "worker"]


def _libraries() -> list[Path]:
    return [path for path in (Path("/lib"), Path("/lib64")) if path.exists()]


def _script(tools: _Tools, command: Sequence[str]) -> str:
    # They give way to everybody's conversations; what they say on standard error is not for our log.
    limited = [*tools.command("nice", "-n", "5"), *tools.command("prlimit", *_LIMITS), *command]
    return f'#!/bin/sh\n{_NOWHERE}\nexec {shlex.join(limited)} "$@" 2>/dev/null\n'


def _lay_out(root: Path, entries: Mapping[Path, Path]) -> Path:
    """Make the empty places on which `entries` will be mounted; the table for `mount`, by which nothing is writable."""
    for name, what in entries.items():
        place = root / name
        if what.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    mounts = [(root, root), *((what.resolve(), root / name) for name, what in entries.items())]
    lines = [f"{_escaped(what)} {_escaped(where)} none bind,ro 0 0\n" for what, where in mounts]
    table = root.with_suffix(".fstab")
    table.write_text("".join(lines))
    return table


def _escaped(path: Path) -> str:
    """As fstab(5) wants it: white space and the escape itself by their octal numbers."""
    return "".join(f"\\{ord(letter):03o}" if letter in " \t\n\\#" else letter for letter in str(path))
