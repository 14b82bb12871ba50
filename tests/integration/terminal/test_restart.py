"""The service or the network goes away under the client, and no word is lost or doubled."""

import asyncio

import asyncpg

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text, Wait
from tests.integration.terminal.programs import ServiceProgram, new_session, stored, terminal
from tests.integration.terminal.wire import wire_to
from tests.waiting import eventually


async def test_after_kill_9_in_mid_reply_the_client_ends_with_the_stored_text(
    program: ServiceProgram, model: OpenAIFake
) -> None:
    model.script(Text("The first half, "), Text("and then "), Hang())
    session_id = await new_session(program.address)
    async with terminal(program.address, "--session", session_id) as client:
        client.type("A long story, please")
        await client.says("and then ")
        await program.kill()
        await client.notices("connection is lost")
        await program.start()
        await client.notices("[stopped, because the service broke off]", 20)

        assert await client.end() == 1  # a script has to know that this is only a part
    (_, (_, reply)) = await stored(program.address, session_id)
    assert client.said == f"{reply}\n" == "The first half, and then \n"
    assert "not shown whole" not in client.noticed


async def test_a_message_sent_while_the_service_is_down_arrives_once(
    program: ServiceProgram, model: OpenAIFake
) -> None:
    model.reply("Hello.")
    model.reply("Still here.")
    session_id = await new_session(program.address)
    async with terminal(program.address, "--session", session_id) as client:
        client.type("Hello?")
        await client.says("Hello.\n")  # the line ends when the reply is stored
        await program.kill()
        client.type("Are you there?")
        await client.notices("connection is lost")
        await program.start()
        await client.says("Still here.", 20)

        assert await client.end() == 0
    assert await stored(program.address, session_id) == [
        ("user", "Hello?"),
        ("assistant", "Hello."),
        ("user", "Are you there?"),
        ("assistant", "Still here."),
    ]
    assert len(model.requests) == 2


async def test_a_service_that_is_stopped_in_good_order_tells_why_the_reply_ends(
    program: ServiceProgram, model: OpenAIFake
) -> None:
    model.script(Text("I was saying "), Hang())
    model.reply("Where were we?")
    async with terminal(program.address) as client:
        client.type("Talk")
        await client.says("I was saying")
        await program.stop()
        await client.notices("[stopped, because the service was shut down]")
        client.type("Go on")
        await client.notices("connection is lost")
        await program.start()
        await client.says("Where were we?", 20)
        await client.end()
    assert client.said == "I was saying \nWhere were we?\n"


async def test_a_reply_goes_on_where_it_stopped_when_the_network_breaks(address: str, model: OpenAIFake) -> None:
    gate = asyncio.Event()
    model.script(Text("One, "), Text("two, "), Wait(gate), Text("three, "), Text("four."))
    async with wire_to(address) as (wired, wire), terminal(wired) as client:
        client.type("Count")
        await client.says("two, ")
        wire.cut()
        gate.set()
        await client.says("four.")

        assert await client.end() == 0
    assert client.said == "One, two, three, four.\n"
    assert "connected again" in client.noticed
    assert "not shown whole" not in client.noticed


async def test_a_message_whose_acknowledgement_was_lost_arrives_once(address: str, model: OpenAIFake) -> None:
    model.reply("Hello.")
    session_id = await new_session(address)
    async with wire_to(address) as (wired, wire), terminal(wired, "--session", session_id) as client:
        client.type("/help")
        await client.says("/quit")  # now it is connected
        wire.breaks_before_an_answer = True
        client.type("Hello?")
        await client.says("Hello.")

        assert await client.end() == 0
    assert not wire.breaks_before_an_answer
    assert await stored(address, session_id) == [("user", "Hello?"), ("assistant", "Hello.")]
    assert len(model.requests) == 1


async def test_ctrl_c_while_the_network_is_away_stops_the_reply_when_it_is_back(
    address: str, model: OpenAIFake
) -> None:
    model.script(Text("For ever "), Hang())
    async with wire_to(address) as (wired, wire), terminal(wired) as client:
        client.type("Go on for ever")
        await client.says("For ever")
        with wire.down():
            await client.notices("connection is lost")
            client.press_ctrl_c()
        await client.notices("[stopped]")

        assert await client.end() == 0


async def test_a_second_ctrl_c_leaves_while_the_network_is_away(address: str, model: OpenAIFake) -> None:
    model.script(Text("For ever "), Hang())
    async with wire_to(address) as (wired, wire), terminal(wired) as client:
        client.type("Go on for ever")
        await client.says("For ever")
        with wire.down():
            await client.notices("connection is lost")
            client.press_ctrl_c()
            await client.notices("will be asked to stop")
            client.press_ctrl_c()

            assert await client.ended() == 130
    assert "Traceback" not in client.noticed


async def test_when_the_past_is_gone_the_client_says_so_and_shows_the_stored_text(
    address: str, model: OpenAIFake, database_url: str
) -> None:
    gate = asyncio.Event()
    model.script(Text("One, "), Wait(gate), Text("two."))
    session_id = await new_session(address)

    async def is_complete() -> bool:
        return ("assistant", "One, two.") in await stored(address, session_id)

    async with wire_to(address) as (wired, wire), terminal(wired, "--session", session_id) as client:
        client.type("Count")
        await client.says("One, ")
        with wire.down():
            gate.set()
            await eventually(is_complete)
            await forget_events(database_url)
        await client.notices("this is what is stored:")

        assert await client.end() == 0
    assert client.said == "One, \nOne, two.\n"
    assert "cannot be told in order" in client.noticed


async def forget_events(database_url: str) -> None:
    """What the service does with the events of finished runs after a day."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("update journals set kept_after = last_seq")
        await connection.execute("delete from events")
    finally:
        await connection.close()
