"""A person at a terminal says whether a tool may be called."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, call
from tests.integration.terminal.programs import piped, terminal
from tests.ledger import Ledger
from tests.service import local_settings, running_service


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
async def address(database_url: str, model: OpenAIFake, ledger: Ledger) -> AsyncGenerator[str, None]:
    """A service with a tool that has to be asked about."""
    settings = local_settings(
        default_provider="openai",
        openai_base_url=model.url,
        openai_api_key="key",
        openai_default_model="fake-small",
        mcp_config=ledger.config(),
        timeouts={"tool_wait": 30},
    )
    async with running_service(settings, database_url) as url:
        yield url


def removing(model: OpenAIFake, text: str) -> None:
    model.script(Text("Well. "), call(0, "ledger__remove", {"text": text}, id=text))
    model.reply("Done.")


async def test_a_person_is_asked_and_their_word_counts(address: str, model: OpenAIFake, ledger: Ledger) -> None:
    removing(model, "a")
    removing(model, "b")
    removing(model, "c")
    async with terminal(address) as client:
        client.type("Remove a")
        await client.notices('may ledger__remove be called with {"text": "a"}?')
        client.type("perhaps")
        await client.notices("[yes, no, always or never?]")
        client.type("no")
        await client.says("Well. Done.\n")
        client.type("Remove b")
        await client.notices('may ledger__remove be called with {"text": "b"}?')
        client.type("always")
        await client.says("Well. Done.\nWell. Done.\n")
        client.type("Remove c")
        await client.says("Well. Done.\nWell. Done.\nWell. Done.\n")
        assert await client.end() == 0
    assert ledger.lines == ["remove b", "remove c"]
    assert "[the call rejected]" in client.noticed


async def test_ctrl_c_stops_a_reply_that_waits_for_a_word(address: str, model: OpenAIFake, ledger: Ledger) -> None:
    removing(model, "a")
    async with terminal(address) as client:
        client.type("Remove a")
        await client.notices("may ledger__remove be called")
        client.press_ctrl_c()
        await client.notices("[stopped]")
        client.type("And now?")
        await client.says("Done.")
        assert await client.end() == 0
    assert ledger.lines == []


async def test_where_nobody_is_left_to_be_asked_the_answer_is_no(
    address: str, model: OpenAIFake, ledger: Ledger
) -> None:
    removing(model, "a")
    client = await piped(address, "Remove a")
    assert client.said == "Well. Done.\n"
    assert ledger.lines == []
