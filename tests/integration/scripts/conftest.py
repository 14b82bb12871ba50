"""One sandbox for all tests here: that it still works after each of them is part of every test."""

from collections.abc import AsyncGenerator

import pytest

from services.scripts.checker import ScriptChecker
from services.scripts.sandbox import Sandbox
from tests.integration.scripts.notebook import Notebook


async def four_characters_each(text: str) -> int:
    """A token count that needs no ranks."""
    return (len(text) + 3) // 4


@pytest.fixture(scope="session")
async def shared_sandbox() -> AsyncGenerator[Sandbox, None]:
    """The sandbox that tests take as `sandbox`."""
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        await sandbox.start()
        yield sandbox


@pytest.fixture
async def sandbox(shared_sandbox: Sandbox) -> AsyncGenerator[Sandbox, None]:
    """A sandbox that still runs scripts when the test is over, and whose scripts share nothing."""
    yield shared_sandbox
    after = await shared_sandbox.run('x = 1\nctx.set_output("x", x)', Notebook(), may_use_ai=False)
    assert (after.outputs, after.error) == ({"x": 1}, None)


@pytest.fixture(scope="session")
async def checker() -> AsyncGenerator[ScriptChecker, None]:
    """A checker of scripts."""
    async with ScriptChecker() as checker:
        yield checker


@pytest.fixture
def notebook() -> Notebook:
    """A host without anything in it."""
    return Notebook()
