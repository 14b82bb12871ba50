"""What scripts read of what was said."""

from typing import Any

import pytest

from db.ids import new_id
from services.scripts.types import ScriptFault
from tests.integration.prompt.host.conftest import NewScene
from tests.integration.prompt.host.scene import NOON, Scene, call, persona


def contents(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages]


async def test_before_the_reply_the_conversation_ends_with_the_users_message(scene: Scene):
    await scene.say("a", "b", "c")
    question = scene.said[-1]
    await scene.say("what another run said later")
    host = scene.host(scene.sight(question))

    assert await call(host, "get_message_count") == 3
    assert contents(await call(host, "get_raw_recent_messages")) == ["a", "b", "c"]
    assert await call(host, "get_ai_response") == "b"


async def test_after_the_reply_it_ends_with_the_reply_whatever_came_next(scene: Scene):
    await scene.say("a", "b", "c")
    question = scene.said[-1]
    await scene.say("the reply", "the next message")
    host = scene.host(scene.sight(question, reply="the reply"))

    assert contents(await call(host, "get_raw_recent_messages", 2)) == ["c", "the reply"]
    assert await call(host, "get_ai_response") == "the reply"


async def test_a_branch_that_was_left_is_not_part_of_it(scene: Scene):
    await scene.say("a", "b")
    await scene.say("left", after=scene.said[0])
    await scene.say("c", after=scene.said[1])
    host = scene.host()

    assert contents(await call(host, "get_message_range")) == ["a", "b", "c"]
    assert await call(host, "get_message_count") == 3
    assert await call(host, "search_messages", "left") == []


async def test_messages_come_with_id_role_content_and_time(scene: Scene):
    await scene.say("a")

    assert await call(scene.host(), "get_raw_recent_messages") == [
        {"id": str(scene.said[0]), "role": "user", "content": "a", "created_at": NOON.isoformat()}
    ]


async def test_recent_messages_are_lines_with_time_and_role(scene: Scene):
    await scene.say("a", "b", "c")

    assert await call(scene.host(), "get_recent_messages", 2) == "[12:01] Assistant: b\n[12:02] User: c"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), "abcde"),
        ((1, 3), "bc"),
        ((3,), "de"),
        ((3, 99), "de"),
        ((3, 3), ""),
        ((3, 1), ""),
        ((9,), ""),
        ((0, 2**62), "abcde"),
    ],
)
async def test_a_range_goes_by_position(scene: Scene, arguments: tuple[int, ...], found: str):
    await scene.say(*"abcde")

    assert contents(await call(scene.host(), "get_message_range", *arguments)) == [*found]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [((), "abcde"), ((2,), "de"), ((2, 1), "cd"), ((9, 4), "a"), ((9, 5), ""), ((0, 0), ""), ((2**62, 2**62), "")],
)
async def test_history_leaves_out_the_newest(scene: Scene, arguments: tuple[int, ...], found: str):
    await scene.say(*"abcde")

    assert contents(await call(scene.host(), "get_conversation_history", *arguments)) == [*found]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_recent_messages", (-1,)),
        ("get_raw_recent_messages", (-1,)),
        ("get_message_range", (-1,)),
        ("get_message_range", (0, -1)),
        ("get_conversation_history", (1, -1)),
        ("search_messages", ("x", -1)),
    ],
)
async def test_negative_numbers_are_refused(scene: Scene, name: str, arguments: tuple[Any, ...]):
    with pytest.raises(ScriptFault, match="must not be negative"):
        await call(scene.host(), name, *arguments)


async def test_one_call_gives_a_thousand_messages_at_most(scene: Scene):
    await scene.say(*map(str, range(1_002)))
    host = scene.host()

    assert contents(await call(host, "get_raw_recent_messages", 5_000)) == [*map(str, range(2, 1_002))]
    assert contents(await call(host, "get_message_range")) == [*map(str, range(1_000))]
    assert await call(host, "get_message_count") == 1_002


async def test_of_long_messages_as_many_come_as_fit(scene: Scene):
    await scene.say(*(letter * 100_000 for letter in "abcd"))
    host = scene.host()

    assert [text[0] for text in contents(await call(host, "get_raw_recent_messages"))] == ["c", "d"]
    assert [text[0] for text in contents(await call(host, "get_message_range", 1))] == ["b", "c"]
    assert [text[0] for text in contents(await call(host, "get_conversation_history", 9, 1))] == ["b", "c"]


async def test_a_message_that_does_not_fit_by_itself_is_cut(scene: Scene):
    await scene.say("short", "€" * 200_000)
    host = scene.host()

    for name in ("get_raw_recent_messages", "get_message_range"):
        arguments = (1,) if name == "get_message_range" else ()
        (text,) = contents(await call(host, name, *arguments))
        assert text == "€" * (256 * 1024 // 3)


async def test_another_session_of_the_same_owner_can_be_read(scene: Scene, new_scene: NewScene):
    await scene.say("here")
    other = await new_scene()
    await other.say("there", "and back")
    await other.give_to(scene.owner_id)
    host, session_id = scene.host(), str(other.session_id)

    assert await call(host, "get_message_count", session_id) == 2
    assert contents(await call(host, "get_message_range", session_id=session_id)) == ["there", "and back"]
    assert contents(await call(host, "search_messages", "back", session_id=session_id)) == ["and back"]
    assert await call(host, "get_message_count", str(scene.session_id).upper()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "get_message_count",
        "get_recent_messages",
        "get_raw_recent_messages",
        "get_message_range",
        "get_conversation_history",
        "get_conversation_summary",
        "search_messages",
    ],
)
async def test_a_foreign_session_is_like_one_that_does_not_exist(scene: Scene, new_scene: NewScene, name: str):
    foreign = await new_scene()
    await foreign.say("secret")
    host = scene.host()
    query = {"query": "secret"} if name == "search_messages" else {}

    for session_id in (str(foreign.session_id), str(new_id()), "nonsense", ""):
        with pytest.raises(ScriptFault) as fault:
            await call(host, name, session_id=session_id, **query)
        assert fault.value.message == "There is no session with that id."


async def test_a_run_whose_owner_does_not_own_the_session_sees_nothing(scene: Scene, new_scene: NewScene):
    foreign = await new_scene()
    await foreign.say("a secret", "a reply", "more")
    scene.session_id, scene.said = foreign.session_id, foreign.said
    host = scene.host()

    assert await call(host, "get_message_count") == 0
    assert await call(host, "get_message_range") == []
    assert await call(host, "get_raw_recent_messages") == []
    assert await call(host, "search_messages", "secret") == []
    assert await call(host, "get_ai_response") == ""
    assert not await call(host, "should_compress_buffer_by_ids", [str(scene.said[0])], 0)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("CHEESE", ["bread and cheese"]),
        ("cheese bread", ["bread and cheese", "we bake bread"]),
        ("彼", ["彼は猫が好きです"]),
        ("ake", ["we bake bread"]),
        ("nothing | & ! (", []),
        ("  ", []),
        ("cheese" + " " * 2_000 + "bake", ["bread and cheese"]),
    ],
)
async def test_messages_are_found_by_their_words_the_best_first(scene: Scene, query: str, found: list[str]):
    await scene.say("bread and cheese", "彼は猫が好きです", "we bake bread")

    assert contents(await call(scene.host(), "search_messages", query)) == found


async def test_of_equal_finds_the_newest_come_first_and_no_more_than_asked(scene: Scene):
    await scene.say("tea 1", "tea 2", "tea 3")

    assert contents(await call(scene.host(), "search_messages", "tea", 2)) == ["tea 3", "tea 2"]


async def test_what_is_long_and_strange_can_be_searched(scene: Scene):
    await scene.say(" ".join(f"word{number}" for number in range(200_000)), "x" * 500_000)

    assert len(await call(scene.host(), "search_messages", "word1")) == 1


async def test_the_turn_itself_is_known(scene: Scene):
    host = scene.host(scene.sight(persona=persona(scene.owner_id)))

    assert await call(host, "get_user_message") == "And now?"
    assert await call(host, "get_ai_response") == ""
    assert await call(host, "get_conversation_summary") == ""
    assert await call(host, "get_persona_info") == {"name": "Ada", "description": "Brief.", "mode": "reactive"}


async def test_without_a_persona_there_is_nothing_to_know_of_it(scene: Scene):
    assert await call(scene.host(), "get_persona_info") == {}
