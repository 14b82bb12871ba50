"""What scripts keep of a session."""

from typing import Any
from uuid import UUID

import pytest

from db.ids import ModuleId, new_id
from services.prompt.memory import memory_id_of
from services.scripts.types import ScriptFault
from services.scripts.values import Json
from tests.integration.prompt.host.conftest import NewScene
from tests.integration.prompt.host.scene import Scene, call


def contents(found: list[dict[str, Any]]) -> list[str]:
    return [one["content"] for one in found]


async def test_what_is_stored_can_be_read_newest_first(scene: Scene):
    host = scene.host()
    ids = [await call(host, "store_memory", text, metadata={"from": text}) for text in ("one", "two", "three")]

    found = await call(host, "get_recent_memories", 2)

    assert contents(found) == ["three", "two"]
    assert [memory["id"] for memory in found] == ids[:0:-1]
    assert found[0]["metadata"] == {"from": "three"}
    assert set(found[0]) == {"id", "content", "metadata", "created_at"}


async def test_a_stage_that_is_repeated_stores_nothing_twice(scene: Scene):
    view = scene.sight()
    first, second = scene.host(view), scene.host(view)
    ids = [[await call(host, "store_memory", text) for text in ("one", "two")] for host in (first, second)]

    assert ids[0] == ids[1]
    assert contents(await call(first, "get_recent_memories")) == ["two", "one"]


async def test_modules_of_one_run_store_memories_of_their_own(scene: Scene):
    for _ in range(2):  # each sight is that of another module
        await call(scene.host(scene.sight()), "store_memory", "the same")

    assert contents(await call(scene.host(), "get_recent_memories")) == ["the same", "the same"]


def test_ids_of_memories_sort_by_run_and_then_by_number():
    module = ModuleId(new_id())
    run = new_id()
    a_millisecond_later = UUID(int=run.int + (1 << 80))
    ids = [memory_id_of(of, module, number) for of in (run, a_millisecond_later) for number in range(50)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 100
    assert {memory_id.version for memory_id in ids} == {7}


async def test_the_buffer_is_what_no_memory_covers(scene: Scene):
    await scene.say(*"abcdefg")
    host = scene.host()
    assert contents(await call(host, "get_buffer_messages")) == [*"abcdefg"]

    await call(host, "store_memory", "the beginning", [0, 1])
    await call(host, "store_memory", "some of the middle", [3, 3])
    await call(host, "store_memory", "about nothing that was said")

    assert contents(await call(host, "get_buffer_messages")) == [*"cefg"]
    assert contents(await call(host, "get_buffer_messages", 1, 2)) == ["e", "f"]
    assert contents(await call(host, "get_buffer_messages", 3, 3)) == ["g"]
    assert await call(host, "get_buffer_messages", 2, 1) == []


async def test_the_status_counts_what_is_kept_and_what_is_not(scene: Scene):
    await scene.say(*"abcde", tokens=7)
    host = scene.host()
    await call(host, "store_memory", "the beginning", [0, 2])

    assert await call(host, "get_memory_status") == {
        "memories": 1,
        "buffer_messages": 2,
        "buffer_tokens": 14,
        "total_messages": 5,
    }


@pytest.mark.parametrize(("limits", "should"), [((2, 14), False), ((1, 99), True), ((99, 13), True)])
async def test_the_buffer_is_to_be_compressed_when_it_exceeds_either_number(
    scene: Scene, limits: tuple[int, int], should: bool
):
    await scene.say("a", "b", tokens=7)
    host = scene.host()
    ids = [str(message_id) for message_id in scene.said]

    assert await call(host, "should_compress_buffer", *limits) is should
    assert await call(host, "should_compress_buffer_by_ids", [*ids, ids[0], str(new_id()), "x"], *limits) is should


async def test_foreign_messages_count_for_nothing(scene: Scene, new_scene: NewScene):
    foreign = await new_scene()
    await foreign.say("a", "b")

    assert not await call(scene.host(), "should_compress_buffer_by_ids", [str(one) for one in foreign.said], 0, 0)


async def test_memories_are_found_by_their_words(scene: Scene):
    host = scene.host()
    for text in ("He likes bread and cheese", "He bakes bread", "He sings"):
        await call(host, "store_memory", text)

    found = await call(host, "search_memories", "Bread? And cheese!")

    assert contents(found) == ["He likes bread and cheese", "He bakes bread"]
    assert len(await call(host, "search_memories", "bread", 1)) == 1
    assert await call(host, "search_memories", " ") == []


async def test_forgetting_returns_the_messages_to_the_buffer(scene: Scene, new_scene: NewScene):
    await scene.say("a", "b")
    other = await new_scene()
    await call(other.host(), "store_memory", "of another")
    host = scene.host()
    for _ in range(2):
        await call(host, "store_memory", "x", [0, 1])

    assert await call(host, "clear_memories") == 2
    assert await call(host, "clear_memories") == 0
    assert (await call(host, "get_memory_status"))["buffer_messages"] == 2
    assert contents(await call(other.host(), "get_recent_memories")) == ["of another"]


@pytest.mark.parametrize("message_range", [[], [0], [0, 1, 2], [-1, 0], [1, 0], [0, 2], [2**62, 2**62]])
async def test_a_range_must_be_two_positions_of_the_conversation(scene: Scene, message_range: list[Json]):
    await scene.say("a", "b")

    with pytest.raises(ScriptFault, match="two positions"):
        await call(scene.host(), "store_memory", "x", message_range)


async def test_what_is_too_large_is_not_stored(scene: Scene):
    host = scene.host()
    for content, metadata in (("€" * 22_000, ""), ("x", "y" * 20_000)):
        with pytest.raises(ScriptFault, match="at most"):
            await call(host, "store_memory", content, metadata={"about": metadata})

    assert (await call(host, "get_memory_status"))["memories"] == 0


async def test_of_the_largest_memories_as_many_come_as_fit(scene: Scene):
    host = scene.host()
    for letter in "abcde":
        await call(host, "store_memory", letter * 65_536)

    assert [text[0] for text in contents(await call(host, "get_recent_memories"))] == ["e", "d", "c"]


async def test_a_script_stores_a_hundred_memories_at_most(scene: Scene):
    host = scene.host()
    for number in range(100):
        await call(host, "store_memory", str(number))

    with pytest.raises(ScriptFault, match="at most 100 memories"):
        await call(host, "store_memory", "one more")

    assert len(await call(host, "get_recent_memories", 5_000)) == 100


async def test_nothing_is_kept_of_a_session_that_is_gone_or_foreign(scene: Scene, new_scene: NewScene):
    foreign = await new_scene()
    await call(foreign.host(), "store_memory", "secret")
    scene.session_id = foreign.session_id
    host = scene.host()

    with pytest.raises(ScriptFault, match="was deleted"):
        await call(host, "store_memory", "planted")

    assert await call(host, "get_recent_memories") == []
    assert await call(host, "search_memories", "secret") == []
    assert await call(host, "clear_memories") == 0
    assert contents(await call(foreign.host(), "get_recent_memories")) == ["secret"]
