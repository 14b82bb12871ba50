"""Files that come with messages: stored with them, told to the model, and what becomes of both."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from websockets.asyncio.client import connect

from services.context.items import WORDLESS
from services.context.tokens import TokenCounter
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Status, Text, Wait, call
from tests.integration.conftest import SharedModel
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem
from tests.papers import docx, paragraph, picture
from tests.service import local_settings, running_service
from tests.waiting import eventually

STORY = "\n".join(f"Chapter {n}. The keeper of the lighthouse wrote in his book." for n in range(2_000))


@pytest.fixture(scope="module")
async def desk(
    shared_database_url: str, shared_model: SharedModel, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[str, None]:
    """The base URL of a service with files and with a model."""
    settings = local_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        default_provider="openai",
        openai_base_url=shared_model.url,
        openai_api_key="sk-test",
        openai_default_model="fake-small",
        context={"file_tokens": 200},
        titles={"enabled": False},
    )
    async with running_service(settings, shared_database_url) as base_url:
        yield base_url


@pytest.fixture
async def http(desk: str) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `desk`."""
    async with httpx2.AsyncClient(base_url=desk, timeout=30) as client:
        yield client


async def put(http: httpx2.AsyncClient, session_id: str, data: bytes, name: str) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/files", files={"file": (name, data)})
    return answer.raise_for_status().json()


async def say(
    http: httpx2.AsyncClient, session_id: str, content: str = "Look at this.", **fields: Any
) -> dict[str, Any]:
    answer = await http.post(f"/api/sessions/{session_id}/messages", json={"content": content, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(model: OpenAIFake, position: int = -1) -> Any:
    """The content of a message in the model's newest request."""
    return model.requests[-1].body["messages"][position]["content"]


async def test_a_document_is_told_after_the_users_words_as_material(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, docx(paragraph("Meet at noon.")), "plan.docx")

    reply = await say(http, session_id, attachments=[file["id"]])

    words = told(model)
    assert words.startswith("Look at this.\n\n[Files that came with this message.")
    assert f'[File {file["id"]} "plan.docx"' in words
    assert f"It begins:]\nMeet at noon.\n[End of file {file['id']}]" in words
    asked = reply["user_message"]
    assert asked["content"] == "Look at this."
    assert asked["parts"] == [
        {"type": "text", "text": "Look at this."},
        {
            "type": "file",
            "file_id": file["id"],
            "name": "plan.docx",
            "media_type": file["media_type"],
            "kind": "document",
        },
    ]
    listed = (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"]
    assert listed[1]["parts"] == asked["parts"]


async def test_a_picture_is_shown_to_the_model(http: httpx2.AsyncClient, session_id: str, model: OpenAIFake) -> None:
    photo = await put(http, session_id, picture("JPEG", size=(640, 480)), "photo.jpg")

    await say(http, session_id, attachments=[photo["id"]])
    await say(http, session_id, "And now?")

    text, image = told(model, 0)
    assert f'[Picture {photo["id"]} "photo.jpg": 640 by 480 pixels.]' in text["text"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert told(model) == "And now?"


async def test_of_a_long_document_the_beginning_is_told_within_its_budget(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    files = [await put(http, session_id, STORY.encode(), f"{n}.md") for n in range(4)]

    await say(http, session_id, attachments=[files[0]["id"]])
    (alone,) = beginnings(told(model))
    await say(http, session_id, attachments=[file["id"] for file in files])
    shared = beginnings(told(model))

    tokens = TokenCounter()
    assert STORY.startswith(alone)
    assert 150 <= await tokens.count(alone) <= 200
    assert len(shared) == 4
    assert 300 <= sum([await tokens.count(one) for one in shared]) <= 400


def beginnings(words: str) -> list[str]:
    return [part.partition("\n[File ")[0] for part in words.split("It begins:]\n")[1:]]


async def test_what_is_told_never_has_more_tokens_than_were_counted(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
) -> None:
    files = [
        await put(http, session_id, STORY.encode(), "story.md"),
        await put(http, session_id, bytes(range(256)), "blob"),
        await put(http, session_id, ("文" * 9_000).encode(), "x" * 200),
    ]
    tokens = TokenCounter()

    async def counted(words: str) -> tuple[int, int]:
        reply = await say(http, session_id, words, attachments=[file["id"] for file in files])
        message_id = reply["user_message"]["id"]
        stored = await database.fetchval("select context_tokens from messages where id = $1", message_id)
        return await tokens.count_message(told(model)), stored

    for words in ("Look at this.", "", "?"):
        spent, stored = await counted(words)
        assert spent <= stored <= spent + 200


async def test_files_may_come_without_a_word_but_nothing_may_not(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"words", "x.txt")

    reply = await say(http, session_id, "", attachments=[file["id"]])

    assert told(model).startswith(f"{WORDLESS}\n\n[Files")
    assert [part["type"] for part in reply["user_message"]["parts"]] == ["file"]
    refused = await http.post(f"/api/sessions/{session_id}/messages", json={"content": " "})
    problem(refused, 422, "invalid_request", "/content")
    turns = {"messages": [{"content": ""}, {"content": "x"}], "attachments": [file["id"]]}
    problem(await http.post(f"/api/sessions/{session_id}/messages", json=turns), 422, "invalid_request", "/content")


async def test_files_come_with_the_last_of_several_turns(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"words", "x.txt")
    turns = [{"content": "First."}, {"content": "Second."}]

    answer = await http.post(
        f"/api/sessions/{session_id}/messages", json={"messages": turns, "attachments": [file["id"]]}
    )

    assert answer.status_code == 200
    assert told(model, -2) == "First."
    assert told(model).startswith("Second.\n\n[Files")


async def test_a_file_that_was_deleted_keeps_its_name_in_the_message(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    plan = await put(http, session_id, b"Meet at noon.", "plan.txt")
    photo = await put(http, session_id, picture(), "photo.png")
    reply = await say(http, session_id, attachments=[plan["id"], photo["id"]])

    for file in (plan, photo):
        assert (await http.delete(file["url"])).status_code == 204
    await say(http, session_id, "Still there?")

    words = told(model, 0)
    assert "Meet at noon." not in words
    assert f'[File {plan["id"]} "plan.txt": it was deleted since.]' in words
    assert f'[File {photo["id"]} "photo.png": it was deleted since.]' in words
    message = (await http.get(f"/api/messages/{reply['user_message']['id']}")).json()
    assert [part["name"] for part in message["parts"][1:]] == ["plan.txt", "photo.png"]
    gone = await http.post(f"/api/sessions/{session_id}/messages", json={"content": "x", "attachments": [plan["id"]]})
    assert plan["id"] in problem(gone, 404, "not_found", "/attachments/0")["detail"]


async def test_a_model_that_cannot_look_is_told_so(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    photo = await put(http, session_id, picture(), "photo.png")
    model.script(Status(400, "This model does not support image inputs"))
    model.script(Text("I cannot see it."))

    reply = await say(http, session_id, attachments=[photo["id"]], model="blind")

    assert reply["message"]["content"] == "I cannot see it."
    assert "you cannot look at pictures" in told(model)


async def test_only_files_of_the_session_can_come_with_a_message(
    http: httpx2.AsyncClient, session_id: str, stranger: Stranger, database: asyncpg.Connection
) -> None:
    other = (await http.post("/api/sessions", json={})).json()["id"]
    elsewhere = await put(http, other, b"words", "x.txt")
    owner = await database.fetchval("select owner_id from sessions where id = $1", stranger.session_id)
    theirs = str(uuid4())
    await database.execute(
        """
        insert into files (id, session_id, owner_id, name, media_type, size, sha256, text_state)
        values ($1, $2, $3, 'theirs', 'text/plain', 1, '', 'ready')
        """,
        theirs,
        stranger.session_id,
        owner,
    )
    path = f"/api/sessions/{session_id}/messages"

    for file_id in (elsewhere["id"], theirs, str(uuid4())):
        refused = await http.post(path, json={"content": "x", "attachments": [file_id]})
        assert file_id in problem(refused, 404, "not_found", "/attachments/0")["detail"]
    for wrong in (["x"], [str(uuid4())] * 21, "x"):
        problem(await http.post(path, json={"content": "x", "attachments": wrong}), 422, "invalid_request")

    assert (await http.get(path)).json()["items"] == []


async def test_a_retry_is_the_same_only_with_the_same_files(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"words", "x.txt")

    first = await say(http, session_id, client_message_id="a", attachments=[file["id"]])
    again = await say(http, session_id, client_message_id="a", attachments=[file["id"]])
    other = await http.post(
        f"/api/sessions/{session_id}/messages", json={"content": "Look at this.", "client_message_id": "a"}
    )

    assert first["run_id"] == again["run_id"]
    problem(other, 409, "conflict", "/client_message_id")
    assert len(model.requests) == 1


async def test_a_message_with_files_is_answered_once_more_with_them(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"Meet at noon.", "x.txt")
    reply = await say(http, session_id, attachments=[file["id"]])

    await http.post(f"/api/sessions/{session_id}/regenerate", json={"message_id": reply["message"]["id"]})

    assert len(model.requests) == 2
    assert "Meet at noon." in told(model)


async def test_files_come_with_a_message_over_the_socket(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"Meet at noon.", "x.txt")
    address = str(http.base_url).replace("http", "ws").rstrip("/")

    async with connect(f"{address}/ws/chat/{session_id}") as socket:
        await socket.send(json.dumps({"type": "message", "content": "Hi", "attachments": [str(uuid4())]}))
        await socket.send(json.dumps({"type": "message", "content": "Hi", "attachments": [file["id"]]}))
        frames: list[dict[str, Any]] = []
        while not frames or frames[-1]["type"] != "assistant_end":
            frames.append(json.loads(await socket.recv()))

    errors = [frame for frame in frames if frame["type"] == "error"]
    assert [(error["code"], error["details"]["field"]) for error in errors] == [("not_found", ["attachments", 0])]
    assert "Meet at noon." in told(model)


async def test_of_many_pictures_the_newest_are_shown(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    photos = [await put(http, session_id, picture("PNG", size=(9 + n, 9)), f"{n}.png") for n in range(12)]
    ids = [photo["id"] for photo in photos]

    await say(http, session_id, attachments=ids, controls={"max_tokens": 16})
    await say(http, session_id, "More.", attachments=ids[:10], controls={"max_tokens": 16})

    older, newer = told(model, 0), told(model)
    assert len(newer) == 11
    assert len(older) == 11
    assert older[0]["text"].count("it is not shown here again") == 2


async def test_files_come_with_words_that_steer_a_reply(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"Meet at noon.", "x.txt")
    gate = asyncio.Event()
    model.script(Text("Looking. "), Wait(gate), call(0, "no_such_tool", {}))
    model.script(Text("At noon."))
    first = asyncio.create_task(say(http, session_id, "Find it."))
    await eventually(lambda: model.requests)

    steering = asyncio.create_task(say(http, session_id, "It is in here.", attachments=[file["id"]], when_busy="steer"))
    await eventually(lambda: _said(http, session_id, "It is in here."))
    gate.set()
    await first
    await steering
    await say(http, session_id, "Sure?")

    for request in model.requests[1:]:
        words = [str(message["content"]) for message in request.body["messages"]]
        (steered,) = [text for text in words if text.startswith("It is in here.")]
        assert "Meet at noon." in steered


async def _said(http: httpx2.AsyncClient, session_id: str, words: str) -> bool:
    listed = (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"]
    return any(message["content"] == words for message in listed)


async def test_words_that_are_changed_keep_their_files(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"Meet at noon.", "x.txt")
    message = (await say(http, session_id, "Lok.", attachments=[file["id"]]))["user_message"]

    changed = await http.patch(f"/api/messages/{message['id']}", json={"content": "Look."})
    await say(http, session_id, "And?")

    assert changed.status_code == 200, changed.text
    assert told(model, 0).startswith("Look.\n\n[Files that came with this message.")
    assert "Meet at noon." in told(model, 0)
    assert changed.json()["parts"] == [{"type": "text", "text": "Look."}, message["parts"][1]]


async def test_the_context_shows_what_files_cost(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, database: asyncpg.Connection
) -> None:
    photo = await put(http, session_id, picture(size=(1024, 1024)), "photo.png")
    message = (await say(http, session_id, attachments=[photo["id"]]))["user_message"]

    shown = await http.get(f"/api/sessions/{session_id}/context")

    assert shown.status_code == 200, shown.text
    (item,) = shown.json()["messages"][0]["items"]
    assert (item["preview"], item["files"]) == ("Look at this.", ["photo.png"])
    assert item["tokens"] > 765
    assert await database.fetchval("select context_tokens from messages where id = $1", message["id"]) > 765
    assert model.requests


async def test_a_message_is_found_again_by_its_id_though_its_file_is_gone(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    file = await put(http, session_id, b"words", "x.txt")
    first = await say(http, session_id, client_message_id="a", attachments=[file["id"]])
    await http.delete(file["url"])

    again = await say(http, session_id, client_message_id="a", attachments=[file["id"]])

    other = await http.post(
        f"/api/sessions/{session_id}/messages",
        json={"content": "Other words.", "client_message_id": "a", "attachments": [file["id"]]},
    )

    assert again["run_id"] == first["run_id"]
    problem(other, 409, "conflict", "/client_message_id")
    assert len(model.requests) == 1
