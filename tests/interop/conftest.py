from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.peer import LlamaServer, llama_server
from tests.interop.service import Chat, Colloquy, colloquy

HERE = Path(__file__).parent
BY_REQUEST = {HERE / "test_llama_server.py", HERE / "test_tool_server.py"}

WIDE = 32_768
NARROW = 16_384


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that need a compiled peer run only where the command line names this directory or a file in it."""
    directory = config.invocation_params.dir
    asked_for = any((directory / word.split("::")[0]).resolve().is_relative_to(HERE) for word in config.args)
    return True if collection_path in BY_REQUEST and not asked_for else None


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A model server with room for long replies."""
    with llama_server(tmp_path_factory.mktemp("peer") / "log", context=WIDE) as server:
        yield server


@pytest.fixture(scope="session")
def narrow_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A model server whose context a single message can fill."""
    with llama_server(tmp_path_factory.mktemp("narrow") / "log", context=NARROW) as server:
        yield server


@pytest.fixture(scope="module", params=["chat_completions", "responses"])
def api(request: pytest.FixtureRequest) -> str:
    """Which of the two protocols the service speaks to the model server."""
    return request.param


@pytest.fixture(scope="module")
def service(peer: LlamaServer, api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Colloquy]:
    with colloquy(tmp_path_factory.mktemp("service"), base_url=peer.base_url, key=peer.key, api=api) as running:
        yield running


@pytest.fixture
def chat(service: Colloquy) -> Iterator[Chat]:
    with service.chat() as opened:
        yield opened
