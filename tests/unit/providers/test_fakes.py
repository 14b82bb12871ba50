"""The servers that stand in for the real ones tell the tests the truth."""

import asyncio
import sys

import pytest

from services.agent.types import Finish, Usage
from services.providers.base import Provider
from services.providers.ollama import OllamaProvider
from services.providers.openai import OpenAIAddress, OpenAIProvider
from tests.fakes import firehose
from tests.fakes.script import Finish as FinishStep
from tests.fakes.script import Hang, Script, Text, Wait
from tests.unit.providers.conftest import Peer, answer, ask, joined


async def test_a_record_tells_what_was_asked_and_who_ended_it(peer: Peer) -> None:
    await answer(peer.provider(), ask("what?"))
    record = await peer.fake.request()
    assert "what?" in str(record.body)
    assert await asyncio.wait_for(record.closed, 5) >= record.at
    assert (record.ended_by, record.sent) == ("server", 2)


async def test_scripts_are_taken_in_order_and_then_the_usual_answer(peer: Peer) -> None:
    provider = peer.provider()
    peer.fake.reply("one")
    peer.fake.reply("two")
    assert [joined(await answer(provider)) for _ in range(3)] == ["one", "two", "Hello there."]


async def test_leaving_the_server_ends_what_still_hangs(peer: Peer) -> None:
    peer.fake.script(Text("a"), Wait(asyncio.Event()))
    task = asyncio.create_task(answer(peer.provider()))
    await peer.fake.request()
    await asyncio.wait_for(peer.fake.__aexit__(None, None, None), 5)
    await asyncio.wait([task], timeout=5)
    assert task.exception()


def test_only_a_script_without_an_ending_is_completed() -> None:
    assert Script((Hang(),)).complete() == (Hang(),)
    assert Script((Text("a"),)).complete()[-1] == FinishStep("stop")


@pytest.mark.parametrize("kind", ["chat_completions", "responses", "ollama"])
@pytest.mark.parametrize("rate", [0.0, 2000.0])
async def test_the_fast_server_speaks_every_protocol(kind: str, rate: float) -> None:
    server = await firehose.serve(port=0, rate=rate, deltas=25)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider: Provider
    match kind:
        case "ollama":
            provider = OllamaProvider(url)
        case "responses":
            provider = OpenAIProvider(OpenAIAddress("k", f"{url}/v1"), api="responses")
        case _:
            provider = OpenAIProvider(OpenAIAddress("k", f"{url}/v1"))
    for _ in range(2):
        events = await answer(provider)
        assert len(joined(events).split()) == 25
        assert events[-2:] == [Usage(10, 25), Finish("stop")]
    await provider.aclose()
    server.close()


async def test_the_fast_server_can_be_started_from_the_command_line() -> None:
    command = ("-m", "tests.fakes.openai_server", "--port", "0", "--rate", "500", "--deltas", "3")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        provider = OpenAIProvider(OpenAIAddress("k", url))
        assert joined(await answer(provider)) == "word0 word1 word2 "
        await provider.aclose()
    finally:
        process.kill()
        await process.communicate()
