"""Pictures as each protocol carries them, and models that cannot look at them."""

from typing import Any

import pytest

from services.agent.types import ChatMessage, ImagePart, ModelRequest
from services.errors import ProviderRejected
from services.providers.demo import DemoProvider
from services.providers.pictures import REFUSED, has_pictures, without_pictures
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.script import Status, Text
from tests.unit.providers.conftest import Peer, answer, joined, running

PICTURE = ImagePart("image/png", "iVBORw0KGgo=")
SHOWN = ChatMessage("user", "What is this?", (PICTURE, PICTURE))
REQUEST = ModelRequest("fake-small", (ChatMessage("system", "Look."), SHOWN))


def bodies(peer: Peer) -> list[dict[str, Any]]:
    return [request.body for request in peer.fake.requests]


async def test_chat_completions_take_pictures_as_addresses_that_hold_them() -> None:
    async with running("openai-chat") as peer:
        await answer(peer.provider(), REQUEST)

    assert bodies(peer)[0]["messages"] == [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            ],
        },
    ]


async def test_responses_take_pictures_as_parts_of_the_input() -> None:
    async with running("openai-responses") as peer:
        await answer(peer.provider(), REQUEST)

    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    assert bodies(peer)[0]["input"][-1]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        picture,
        picture,
    ]


async def test_ollama_takes_pictures_beside_the_text() -> None:
    async with running("ollama") as peer:
        assert isinstance(peer.fake, OllamaFake)
        peer.fake.capabilities = ["completion", "vision"]
        await answer(peer.provider(), REQUEST)

    assert bodies(peer)[0]["messages"][-1] == {
        "role": "user",
        "content": "What is this?",
        "images": ["iVBORw0KGgo=", "iVBORw0KGgo="],
    }


async def test_an_ollama_model_without_eyes_is_told_so() -> None:
    async with running("ollama") as peer:
        await answer(peer.provider(), REQUEST)

    message = bodies(peer)[0]["messages"][-1]
    assert "images" not in message
    assert message["content"].startswith("What is this?\n\n[2 pictures came")


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize(
    "complaint",
    [
        Status(400, "Invalid content type. image_url is only supported by certain models."),
        Status(400, "This model does not support image inputs"),
        Status(500, "image input is not supported - hint: you may need to provide the mmproj"),
        Status(422, "messages[0]: unknown variant `image_url`, expected `text`"),
        Status(400, "At most 0 image(s) may be provided in one prompt."),
    ],
    ids=["certain models", "does not support", "mmproj", "variant", "at most 0"],
)
async def test_a_model_that_refuses_pictures_is_asked_without_them_from_then_on(kind: str, complaint: Status) -> None:
    async with running(kind) as peer:
        peer.fake.script(complaint)
        provider = peer.provider()
        peer.fake.script(Text("I cannot see it."))
        assert joined(await answer(provider, REQUEST)) == "I cannot see it."
        await answer(provider, REQUEST)

    first, *others = [str(body) for body in bodies(peer)]
    assert "iVBORw0KGgo=" in first
    assert len(others) == 2
    for body in others:
        assert "iVBORw0KGgo=" not in body
        assert "[2 pictures came with this message" in body


async def test_a_picture_that_is_refused_for_itself_is_an_error() -> None:
    async with running("openai-chat") as peer:
        peer.fake.script(Status(400, "Could not process image: its dimensions exceed 8000 pixels"))
        with pytest.raises(ProviderRejected, match="dimensions"):
            await answer(peer.provider(), REQUEST)


async def test_a_complaint_over_pictures_where_there_are_none_is_an_error() -> None:
    async with running("openai-chat") as peer:
        peer.fake.script(Status(400, "This model does not support image inputs"))
        with pytest.raises(ProviderRejected):
            await answer(peer.provider(), ModelRequest("fake-small", (ChatMessage("user", "hi"),)))


async def test_the_demo_says_what_it_was_shown() -> None:
    said = joined(await answer(DemoProvider(word_delay=0), REQUEST))

    assert 'You said "What is this?".' in said
    assert "You showed 2 pictures." in said


def test_what_has_no_pictures_is_left_alone() -> None:
    plain = ChatMessage("user", "hi")

    assert without_pictures([plain]) == [plain]
    assert not has_pictures([plain])
    assert has_pictures([plain, SHOWN])
    (told,) = without_pictures([ChatMessage("user", "x", (PICTURE,))])
    assert isinstance(told, ChatMessage)
    assert told.content.startswith("x\n\n[A picture came with this message")


@pytest.mark.parametrize(
    "message", ["The image could be read.", "context length exceeded", "Rate limited", "Unsupported image format"]
)
def test_other_complaints_are_no_word_on_pictures(message: str) -> None:
    assert not REFUSED.search(message)
