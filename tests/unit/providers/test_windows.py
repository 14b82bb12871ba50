"""Context windows are asked for once, and a server that cannot tell holds nobody up."""

import asyncio
import time
from typing import Any

import pytest

from services.errors import ProviderUnreachable
from services.providers.windows import ContextWindows, openai_window, window_in


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"context_length": 1}, 1),
        ({"max_model_len": 2}, 2),
        ({"context_window": 3}, 3),
        ({"meta": {"n_ctx": 4, "n_ctx_train": 99}}, 4),
        ({"context_length": None, "max_model_len": 5}, 5),
        ({"context_length": "many"}, None),
        ({"context_length": True}, None),
        ({"meta": None}, None),
        ({}, None),
    ],
)
def test_the_window_is_read_under_any_of_its_names(entry: dict[str, Any], window: int | None) -> None:
    assert window_in(entry) == window


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("gpt-4o-mini", 128_000),
        ("gpt-4o-2024-08-06", 128_000),
        ("gpt-4", 8_192),
        ("gpt-4.1-nano", 1_047_576),
        ("gpt-5.1", 400_000),
        ("openai/gpt-5-chat-latest", 128_000),
        ("o4-mini", 200_000),
        ("o1-mini", 128_000),
        ("gpt-40", None),
        ("llama3", None),
    ],
)
def test_well_known_models_are_known(model: str, window: int | None) -> None:
    assert openai_window(model) == window


async def test_a_model_is_asked_for_once() -> None:
    asked: list[str] = []

    async def ask(model: str) -> int:
        asked.append(model)
        return 7

    windows = ContextWindows(ask)
    assert [await windows.of("a"), await windows.of("a"), await windows.of("b")] == [7, 7, 7]
    assert asked == ["a", "b"]


async def test_a_server_that_cannot_tell_is_not_asked_with_every_turn() -> None:
    asked: list[str] = []

    async def ask(model: str) -> int:
        asked.append(model)
        raise ProviderUnreachable

    windows = ContextWindows(ask)
    assert [await windows.of("a"), await windows.of("a")] == [None, None]
    assert asked == ["a"]


async def test_a_server_that_hangs_is_waited_for_shortly() -> None:
    async def ask(model: str) -> int:
        await asyncio.Event().wait()
        return 1

    started = time.monotonic()
    assert await ContextWindows(ask, longest_question=0.02).of("a") is None
    assert time.monotonic() - started < 2
