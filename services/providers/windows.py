"""How many tokens a model can take, asked once and remembered."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

from services.errors import ProviderError
from services.providers.loose import count, mapping

# OpenAI's own model list does not tell. The longest matching prefix counts. (platform.openai.com/docs/models)
_OPENAI = {
    "gpt-3.5-turbo": 16_385,
    "gpt-4": 8_192,
    "gpt-4-32k": 32_768,
    "gpt-4-turbo": 128_000,
    "gpt-4-1106": 128_000,
    "gpt-4-0125": 128_000,
    "gpt-4o": 128_000,
    "chatgpt-4o": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-4.5": 128_000,
    "gpt-5": 400_000,
    "gpt-5-chat": 128_000,
    "gpt-oss": 131_072,
    "o1": 200_000,
    "o1-mini": 128_000,
    "o1-preview": 128_000,
    "o3": 200_000,
    "o4": 200_000,
    "codex-mini": 200_000,
}
_PREFIXES = {re.compile(rf"{re.escape(prefix)}($|[-.:])"): prefix for prefix in _OPENAI}
_MOST_REMEMBERED = 1_000
"""Models: their names are what somebody has asked for, whether there are such models or not."""
_ASK_AGAIN_AFTER = 60.0
_LONGEST_QUESTION = 2.0


class ContextWindows:
    """Remembers what `ask` said of each model, so that a turn costs no extra request.

    `ask` raises a `ProviderError` when it cannot tell; that is no reason to fail a turn: the answer is then None,
    and the question is put again after a minute.
    """

    def __init__(self, ask: Callable[[str], Awaitable[int | None]], *, longest_question: float = _LONGEST_QUESTION):
        self._ask = ask
        self._longest_question = longest_question
        self._known: dict[str, int] = {}
        self._unknown_until: dict[str, float] = {}

    async def of(self, model: str) -> int | None:
        """The window of `model` in tokens, None where nobody knows."""
        if model in self._known:
            return self._known[model]
        if monotonic() < self._unknown_until.get(model, 0.0):
            return None
        try:
            async with asyncio.timeout(self._longest_question):
                window = await self._ask(model)
        except (ProviderError, TimeoutError):
            window = None
        for remembered in (self._known, self._unknown_until):
            if len(remembered) >= _MOST_REMEMBERED:
                remembered.clear()
        if window is None:
            self._unknown_until[model] = monotonic() + _ASK_AGAIN_AFTER
        else:
            self._known[model] = window
        return window


def window_in(entry: Mapping[str, Any]) -> int | None:
    """The window that an entry of a model list tells, under any of the names in use."""
    for place in (entry, mapping(entry.get("meta"))):
        for name in ("context_length", "max_model_len", "context_window", "n_ctx", "max_context_length"):
            if window := count(place.get(name)):
                return window
    return None


def openai_window(model: str) -> int | None:
    """The window of a well-known OpenAI model."""
    name = model.rpartition("/")[2].lower()
    fits = [prefix for pattern, prefix in _PREFIXES.items() if pattern.match(name)]
    return _OPENAI[max(fits, key=len)] if fits else None
