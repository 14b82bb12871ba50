"""Finding what was said, in all of one's sessions and in nobody else's."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.ids import LOCAL_OWNER, new_id
from db.pool import Database
from db.stores.search import SearchStore
from db.stores.sessions import SessionStore
from services.errors import InvalidRequest
from services.search import MessageSearch
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem


async def say(database: asyncpg.Connection, session_id: str, content: str, role: str = "user") -> str:
    """A message written from behind: how it comes in makes no difference."""
    id = new_id()
    await database.execute(
        "insert into messages (id, session_id, role, content, token_count) values ($1, $2, $3, $4, 1)",
        id,
        UUID(session_id),
        role,
        content,
    )
    return str(id)


async def search(http: httpx2.AsyncClient, q: str, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get("/api/messages/search", params={"q": q, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def ids(http: httpx2.AsyncClient, q: str, **query: Any) -> list[str]:
    return [found["message_id"] for found in await search(http, q, **query)]


@pytest.fixture
def word() -> str:
    """A word that no other test says."""
    return f"w{uuid4().hex}"


async def test_what_was_said_and_answered_is_found_with_its_session(
    http: httpx2.AsyncClient, session_id: str, word: str
) -> None:
    await http.patch(f"/api/sessions/{session_id}", json={"title": "On words"})
    sent = (await http.post(f"/api/sessions/{session_id}/messages", json={"content": f"Say {word}, please"})).json()

    (found,) = await search(http, word)

    assert found["message_id"] == sent["user_message"]["id"]
    assert (found["session_id"], found["session_title"], found["role"]) == (session_id, "On words", "user")
    assert found["excerpt"] == [
        {"text": "Say ", "is_match": False},
        {"text": word, "is_match": True},
        {"text": ", please", "is_match": False},
    ]


async def test_all_words_must_be_there_and_unwanted_ones_must_not(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    red = await say(database, session_id, f"{word} a Red ship")
    blue = await say(database, session_id, f"{word} a blue ship")
    boat = await say(database, session_id, f"{word} a blue boat, red inside", "assistant")

    assert await ids(http, f"{word} ship ") == [blue, red]
    assert await ids(http, f"{word} red") == [boat, red]
    assert await ids(http, f"{word} -red") == [blue]
    assert await ids(http, f'{word} "blue ship"') == [blue]
    assert await ids(http, f'{word} -"blue ship"') == [boat, red]
    assert await ids(http, f"{word} bo*") == [boat]
    assert await ids(http, f"{word} bl") == [boat, blue], "the last word may be unfinished"
    assert await ids(http, f"{word} bl ") == []
    assert await ids(http, f"{word} ship", role="assistant") == []
    assert await ids(http, word, role="assistant") == [boat]


async def test_either_of_two_words_may_do(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    first = await say(database, session_id, f"{word}a")
    second = await say(database, session_id, f"{word}b")
    await say(database, session_id, f"{word}c")

    assert await ids(http, f"{word}a or {word}b") == [second, first]


async def test_a_walk_shows_each_once_newest_first(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    said = [await say(database, session_id, f"{word} {number}") for number in range(23)]

    walked: list[str] = []
    path: str | None = f"/api/messages/search?q={word}&limit=10"
    while path:
        page = await http.get(path)
        walked += [found["message_id"] for found in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None

    assert walked == said[::-1]


@pytest.mark.parametrize(
    ("content", "q"),
    [
        ("昨日、船に乗りました。", "船に乗"),
        ("เรือลำใหญ่", "ลำ"),
        ("오늘은 배를 탔습니다", "배를 탔"),
        ("see http://localhost:8080/x", "calhost:80"),
        ("a + b = ++", "++"),
        ("🙂🙃", "🙃"),
    ],
)
async def test_what_is_no_word_is_found_as_it_stands(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, content: str, q: str
) -> None:
    id = await say(database, session_id, content)
    await say(database, session_id, "something else")

    (found,) = await search(http, q, session_id=session_id)

    assert found["message_id"] == id
    assert [piece["text"] for piece in found["excerpt"] if piece["is_match"]][:1] == [q]


async def test_only_that_session_is_looked_into(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    other = (await http.post("/api/sessions")).json()["id"]
    here, there = await say(database, session_id, word), await say(database, other, word)

    assert await ids(http, word) == [there, here]
    assert await ids(http, word, session_id=session_id) == [here]


async def test_a_changed_message_is_found_by_its_new_words_and_a_deleted_one_not_at_all(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    id = await say(database, session_id, f"{word}old ")

    await database.execute("update messages set content = $2 where id = $1", UUID(id), f"{word}new ")
    assert (await ids(http, f"{word}old "), await ids(http, f"{word}new ")) == ([], [id])

    await http.delete(f"/api/sessions/{session_id}")
    assert await ids(http, f"{word}new ") == []


async def test_a_stranger_is_not_found_in_any_way(
    http: httpx2.AsyncClient, stranger: Stranger, database: asyncpg.Connection, word: str
) -> None:
    await say(database, str(stranger.session_id), f"{word} {word}船")

    assert await search(http, word) == []
    assert await search(http, f"{word}船") == []
    assert await search(http, "secret ") == []
    for there in (str(stranger.session_id), str(uuid4())):
        answer = await http.get("/api/messages/search", params={"q": word, "session_id": there})
        problem(answer, 404, "not_found", "/session_id")


async def test_long_texts_are_found_by_their_beginning(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, word: str
) -> None:
    unlike = " ".join(f"{number:x}\N{GRINNING FACE}q" for number in range(60_000))
    id = await say(database, session_id, f"{word} {unlike}")
    await say(database, session_id, "z" * 300_000)

    assert await ids(http, f"{word} ") == [id]


@pytest.mark.parametrize("q", ["", "  ", "-only -unwanted", "or", "word " * 30, "x" * 501, "\0", "-"])
async def test_a_query_that_says_nothing_or_too_much_is_refused(http: httpx2.AsyncClient, q: str) -> None:
    if q == "-":
        assert isinstance(await search(http, q), list)
        return
    problem(await http.get("/api/messages/search", params={"q": q}), 422, "invalid_request", "/q")


async def test_no_query_breaks_the_search(shared_database_url: str) -> None:
    pool = await Database.connect(shared_database_url, size=2)
    found = MessageSearch(SearchStore(pool), SessionStore(pool))
    hostile = st.text("\"'-*\\&|!():<> aor%_$\u0301\N{IDEOGRAPHIC SPACE}", min_size=1, max_size=40)
    queries: list[str] = []

    @settings(max_examples=150)
    @given(
        hostile | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
    )
    def collect(q: str) -> None:
        queries.append(q)

    collect()
    asked = 0
    for q in queries:
        try:
            hits, _ = await found.find(LOCAL_OWNER, q, session_id=None, role=None, before=None, limit=5)
        except InvalidRequest:
            continue
        asked += 1
        assert len(hits) <= 5
    assert asked > 50
    await pool.close()
