"""Programs need not be written against the interface by hand: a generator makes a client of its document."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.main import create_app
from api.openapi import openapi_document
from tests.service import local_settings

_GENERATOR = "import sys; from openapi_python_client.cli import app; sys.exit(app())"
# It knows JSON, texts and octet-streams; the document says of a picture what it is.
_CONFIG = 'content_type_overrides: {"image/webp": "application/octet-stream"}\n'


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a client that the generator made without a warning."""
    folder = tmp_path_factory.mktemp("client")
    await asyncio.to_thread((folder / "openapi.json").write_bytes, orjson.dumps(_document()))
    await asyncio.to_thread((folder / "config.yml").write_text, _CONFIG)
    status, said = await _generate(folder)
    assert status == 0, said
    assert not re.search("warning|error|unable|skipping", said, re.IGNORECASE), said
    return folder / "made" / "colloquy_client"


def test_a_generated_client_can_do_all_that_the_service_can(client: Path) -> None:
    calls = {file.stem for file in client.glob("api/*/*.py")} - {"__init__"}
    operations = [each["operationId"] for path in _document()["paths"].values() for each in path.values()]

    assert calls == {_in_snake_case(name) for name in operations}


def test_a_generated_client_has_a_type_of_each_name(client: Path) -> None:
    types = {file.stem for file in client.glob("models/*.py")}
    schemas = _document()["components"]["schemas"]

    objects = {_in_snake_case(name) for name, schema in schemas.items() if "properties" in schema}
    assert objects - types == set()
    assert [name for name in types if re.search(r"^body|_(input|output)$|[a-z]\d+$", name)] == []


def test_a_generated_client_is_python(client: Path) -> None:
    for file in client.rglob("*.py"):
        compile(file.read_text(), file, "exec")
    assert "def sync(" in (client / "api" / "sessions" / "import_session.py").read_text()


def test_what_a_generated_client_exports_it_can_import(client: Path) -> None:
    calls = client / "api" / "sessions"

    assert "SessionDocument.from_dict(response.json())" in (calls / "export_session.py").read_text()
    assert "body: SessionDocument" in (calls / "import_session.py").read_text()


def _document() -> dict[str, Any]:
    return openapi_document(create_app(local_settings(), "postgresql://nobody@localhost/nothing"), has_accounts=True)


def _in_snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


async def _generate(folder: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _GENERATOR, "generate", "--path", "openapi.json", "--config", "config.yml"),
        *("--output-path", "made"),
        cwd=folder,
        # It tidies what it made with ruff, which stands beside Python.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()
