"""Colloquy in front of llama-server, over both of OpenAI's interfaces.

python -m tests.interop && python -m pytest tests/interop/test_llama_server.py
"""

from pathlib import Path

import pytest

from tests.interop.peer import LlamaServer, eventually, llama_server
from tests.interop.service import Chat, Colloquy, colloquy, digest, only, text_of, types_of
from tests.interop.tiny_story import ENDLESS_CUE
from tests.readme import first_conversation

pytestmark = pytest.mark.timeout(180)  # the first start of the service makes a database

ENDLESS_STORY = f"Tell me a story {ENDLESS_CUE}."


def test_first_reply_streams_word_by_word_and_is_stored_as_shown(chat: Chat) -> None:
    events = chat.ask("Tell me a story.")

    text, end = text_of(events), only("assistant_end", events)
    assert types_of(events).count("text_delta") > 1
    assert len(text.split()) > 10
    assert end["finish_reason"] == "stop"
    assert end["text_sha256"] == digest(text)
    assert chat.stored() == [("user", "Tell me a story."), ("assistant", text)]


def test_usage_is_what_the_model_server_counted(chat: Chat, peer: LlamaServer) -> None:
    before = peer.tokens_generated()

    usage = only("assistant_end", chat.ask("How long is a story?"))["usage"]

    peer.wait_until_idle(within=2)
    assert usage["output_tokens"] == peer.tokens_generated() - before
    assert usage["input_tokens"] > len("How long is a story?") / 2


def test_second_turn_shows_the_model_the_first(chat: Chat, peer: LlamaServer) -> None:
    first = text_of(chat.ask("My parrot is called Quincunx."))
    chat.until("post_response_complete")

    second = text_of(chat.ask("What is it called?"))

    (prompt,) = (prompt for prompt in peer.prompts() if "What is it called?" in prompt)
    assert prompt.index("Quincunx") < prompt.index(first) < prompt.index("What is it called?")
    assert [content for _, content in chat.stored()] == [
        "My parrot is called Quincunx.",
        first,
        "What is it called?",
        second,
    ]


def test_interrupt_stops_the_model_and_keeps_what_was_shown(chat: Chat, peer: LlamaServer) -> None:
    before = peer.tokens_generated()
    chat.say(ENDLESS_STORY)
    shown = chat.until("text_delta", times=5)
    assert peer.replies_in_progress() == 1

    chat.interrupt()
    shown += chat.until("assistant_end")

    peer.wait_until_idle(within=2)
    assert peer.tokens_generated() - before < peer.context / 2, "it was not stopped, it ran into its limit"
    interrupted, end = only("interrupted", shown), only("assistant_end", shown)
    assert interrupted["phase"] == "streaming"
    assert types_of(shown)[-2:] == ["interrupted", "assistant_end"]
    assert end["finish_reason"] == "interrupted"
    assert end["text_sha256"] == digest(text_of(shown))
    assert chat.stored() == [("user", ENDLESS_STORY), ("assistant", text_of(shown))]


def test_chat_goes_on_after_an_interrupt_and_remembers_the_part_that_was_shown(chat: Chat, peer: LlamaServer) -> None:
    chat.say(ENDLESS_STORY)
    shown = chat.until("text_delta", times=5)
    chat.interrupt()
    shown += chat.until("assistant_end")

    events = chat.ask("And now a short one.")

    assert only("assistant_end", events)["finish_reason"] == "stop"
    (prompt,) = (prompt for prompt in peer.prompts() if "And now a short one." in prompt)
    assert text_of(shown) in prompt


def test_interrupting_one_chat_leaves_another_alone(service: Colloquy, peer: LlamaServer) -> None:
    with service.chat() as stopped, service.chat() as going:
        stopped.say(ENDLESS_STORY)
        going.say(ENDLESS_STORY)
        stopped.until("text_delta", times=5)
        going.until("text_delta", times=5)
        assert peer.replies_in_progress() == 2

        stopped.interrupt()
        stopped.until("assistant_end")

        eventually(lambda: peer.replies_in_progress() == 1, "the interrupted reply to stop", within=2)
        going.until("text_delta", times=5)
        assert peer.replies_in_progress() == 1
        going.interrupt()
        going.until("assistant_end")
    peer.wait_until_idle(within=2)


def test_message_too_long_for_the_model_gets_a_clear_error(narrow_peer: LlamaServer, api: str, tmp_path: Path) -> None:
    # This model takes a token per letter. By the count of any usual tokenizer the message would fit.
    too_long = "Please read these plain words. " * (3 * narrow_peer.context // 31)
    with (
        colloquy(tmp_path, base_url=narrow_peer.base_url, key=narrow_peer.key, api=api) as service,
        service.chat() as chat,
    ):
        events = chat.ask(too_long)

        error = only("error", events)
        assert "context" in f"{error['code']} {error['message']}".lower()
        assert not error["retryable"]
        assert only("assistant_end", events)["finish_reason"] == "error"

        with service.chat() as another:
            assert only("assistant_end", another.ask("A short one."))["finish_reason"] == "stop"


def test_model_server_that_dies_mid_reply_is_named_and_the_shown_text_kept(api: str, tmp_path: Path) -> None:
    with (
        llama_server(tmp_path / "log", context=32_768) as peer,
        colloquy(tmp_path, base_url=peer.base_url, key=peer.key, api=api) as service,
        service.chat() as chat,
    ):
        chat.say(ENDLESS_STORY)
        shown = chat.until("text_delta", times=5)

        peer.kill()
        shown += chat.until("assistant_end")

        assert only("error", shown)["whose"] == "provider"
        end = only("assistant_end", shown)
        assert end["finish_reason"] == "error"
        assert end["text_sha256"] == digest(text_of(shown))
        assert chat.stored() == [("user", ENDLESS_STORY), ("assistant", text_of(shown))]


def test_refused_key_is_an_error_that_does_not_repeat_the_key(peer: LlamaServer, api: str, tmp_path: Path) -> None:
    with (
        colloquy(tmp_path, base_url=peer.base_url, key="sk-not-the-right-one", api=api) as service,
        service.chat() as chat,
    ):
        events = chat.ask("Hello?")

        error = only("error", events)
        assert not error["retryable"]
        assert "sk-not-the-right-one" not in str(events)
        assert only("assistant_end", events)["finish_reason"] == "error"


def test_first_conversation_of_the_readme_is_answered_by_the_model(service: Colloquy, peer: LlamaServer) -> None:
    before = peer.tokens_generated()
    printed = first_conversation(int(service.address.rpartition(":")[2]))
    peer.wait_until_idle(within=2)
    assert len(printed.split()) > 10
    assert peer.tokens_generated() > before
