"""What the operating system adds around a script's process, beneath the interpreter's own walls.

The interpreter knows no files and no network. Should it ever be broken out of, its process has neither: where Linux
allows it, it runs in a root of its own, without network and privileges, and dies with us. Which of that is to be had
depends on the machine, so each level is tried out before it is used.
"""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

PATIENCE = 5.0
"""Seconds for a level to prove that it works here."""

_LIMITS = ("--as=4294967296", "--nofile=64", "--core=0", "--fsize=0")
# Address space is not memory: the interpreter reserves far more than it uses, and is itself told how much that may be.

_NOWHERE = "cd / && unset PWD OLDPWD"
# A shell tells those whom it starts where it is.


class Hardening(StrEnum):
    """How far a script's process is shut in, from the outside."""

    CONTAINED = "contained"
    """Own root directory, no network, no privileges."""
    OFFLINE = "offline"
    """No network, no privileges; files are visible that everybody on the machine can read."""
    LIMITED = "limited"
    """No new privileges, limited resources."""
    NONE = "none"
    """A process like any other: only the interpreter's own walls."""


async def harden(binary: Path, directory: Path) -> tuple[Hardening, Path]:
    """The strongest level that works here, and the command that starts `binary` in it; `directory` must outlive it."""
    for level, script in await asyncio.to_thread(_wrappers, binary, directory):
        wrapper = directory / "worker"
        await asyncio.to_thread(_write, wrapper, script)
        if await _works(wrapper):
            return level, wrapper
    return Hardening.NONE, binary


def _write(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(script)
    path.chmod(0o700)


async def _works(wrapper: Path) -> bool:
    """Whether the interpreter answers from inside."""
    try:
        process = await asyncio.create_subprocess_exec(
            wrapper,
            "--version",
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
    return process.returncode == 0 and said.startswith(b"monty")


def _wrappers(binary: Path, directory: Path) -> Iterator[tuple[Hardening, str]]:
    """Shell scripts that become the interpreter, the strongest first. A worker's environment is empty, so all paths
    are whole; what it says on its standard error is about scripts and none of our log's business."""
    if sys.platform != "linux":
        return
    tools = {name: shutil.which(name) for name in ("bwrap", "nice", "prlimit", "unshare", "setpriv", "mount", "chroot")}

    def has(*names: str) -> bool:
        return all(tools[name] for name in names)

    def command(name: str, *words: str | Path) -> list[str]:
        return [tools[name] or name, *map(str, words)]

    if not has("nice", "prlimit"):
        return
    # Scripts give way to the conversations of everybody else.
    limited = [*command("nice", "-n", "5"), *command("prlimit", *_LIMITS)]
    libraries = [path for path in (Path("/lib"), Path("/lib64")) if path.exists()]
    if has("bwrap"):
        readable = [word for path in libraries for word in ("--ro-bind", path.resolve(), path)]
        yield Hardening.CONTAINED, _script([
            *limited,
            *command("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--uid", "65534", "--gid", "65534", "--ro-bind", str(binary), "/monty", *map(str, readable)),
            *("--chdir", "/", "/monty"),
        ])  # fmt: skip
    if not has("setpriv"):
        return
    powerless = ("--pdeathsig", "KILL", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
    namespaces = ("--user", "--net", "--ipc", "--uts", "--mount")
    if has("unshare", "mount", "chroot"):
        root = directory / "root"
        setpriv = Path(tools["setpriv"] or "")
        entries = {Path("monty"): binary, Path("setpriv"): setpriv} | {
            path.relative_to("/"): path for path in libraries
        }
        table = _lay_out(root, entries)
        mount = shlex.join(command("mount", "--all", "--fstab", table))
        build = f'{_NOWHERE}\n{mount} && exec {shlex.join([*command("chroot", root), "/setpriv", *powerless, "/monty"])} "$@"'
        outer = [*limited, *command("unshare", *namespaces, "--map-root-user"), "/bin/sh", "-c", build, "worker"]
        yield Hardening.CONTAINED, _script(outer)
    if has("unshare"):
        nobody = ("--map-user=65534", "--map-group=65534")
        offline = [*command("unshare", *namespaces, *nobody), *command("setpriv", *powerless, binary)]
        yield Hardening.OFFLINE, _script([*limited, *offline])
    if os.geteuid() == 0:
        nobody = ("--reuid=65534", "--regid=65534", "--clear-groups")
        yield Hardening.LIMITED, _script([*limited, *command("setpriv", *powerless, *nobody, binary)])
    yield Hardening.LIMITED, _script([*limited, *command("setpriv", "--pdeathsig", "KILL", "--no-new-privs", binary)])


def _script(command: Sequence[str]) -> str:
    return f'#!/bin/sh\n{_NOWHERE}\nexec {shlex.join(command)} "$@" 2>/dev/null\n'


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
