"""The provider that needs no key and no network, and never pretends to be a model."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Final

from services.agent.types import (
    ChatMessage,
    Finish,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    TextDelta,
    ToolCall,
    ToolResultMessage,
    Usage,
)
from services.providers.base import ProviderKind
from services.providers.controls import CONTROLS
from services.providers.text import clean_text

MODEL: Final = "demo"
CONTEXT_WINDOW: Final = 8192

_TOOL_CALL = re.compile(r"^/tool\s+(?P<name>\S+)\s*(?P<arguments>.*)$", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"\s*\S+\s*")
# A rough count that is the same everywhere; the real counter lives with the context.
_CHARACTERS_PER_TOKEN = 4


class DemoProvider:
    """Tells, word by word, what it was given; the same request always gets the same answer.

    If the request offers tools, a user's message `/tool name {json}` makes it call that tool, offered or not.
    """

    def __init__(self, *, word_delay: float = 0.015) -> None:
        self.name = "demo"
        self.kind: ProviderKind = "demo"
        self.default_model: str | None = MODEL
        self.controls = frozenset(CONTROLS)
        self._word_delay = word_delay

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncGenerator[ModelEvent, None]]:
        """Stream the account of `request`."""
        return aclosing(self._answer(request))

    async def models(self) -> list[ModelInfo]:
        """The one that is not a model."""
        return [ModelInfo(MODEL, CONTEXT_WINDOW)]

    async def context_window(self, model: str, controls: Mapping[str, Any] | None = None) -> int | None:
        """As much as a small model would take, so that compaction can be seen at work."""
        return CONTEXT_WINDOW

    async def warm(self) -> None:
        """There is nothing to load."""

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def _answer(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        call = _asked_for(request)
        text = f"Demo (no model is connected): calling {call.name}." if call else account_of(request)
        for word in _WORD.findall(text):
            if self._word_delay:
                await asyncio.sleep(self._word_delay)
            yield TextDelta(word)
        if call:
            yield call
        yield Usage(_tokens(*map(_content, request.messages)), _tokens(text))
        yield Finish("tool_calls" if call else "stop")


def account_of(request: ModelRequest) -> str:
    """What the demo says about `request`."""
    system = next((m.content for m in request.messages if isinstance(m, ChatMessage) and m.role == "system"), "")
    sentences = [
        "Demo (no model is connected): this is what a model would have been given.",
        f'The system prompt begins "{_shortly(system)}".' if system.strip() else "There is no system prompt.",
        f"The window holds {_plural(len(request.messages), 'message')}.",
    ]
    if request.tools:
        names = ", ".join(tool.name for tool in request.tools[:8]) + (", …" if len(request.tools) > 8 else "")
        sentences.append(f"On offer: {_plural(len(request.tools), 'tool')} ({names}).")
    last = request.messages[-1] if request.messages else None
    if isinstance(last, ToolResultMessage):
        sentences.append(f'The tool {last.name} answered "{_shortly(last.content)}".')
    elif (said := _last_said(request)) is not None:
        sentences.append(f'You said "{_shortly(said.content)}".')
        if said.images:
            sentences.append(f"You showed {_plural(len(said.images), 'picture')}.")
    return " ".join(sentences)


def _asked_for(request: ModelRequest) -> ToolCall | None:
    last = request.messages[-1] if request.messages else None
    if not request.tools or not isinstance(last, ChatMessage) or last.role != "user":
        return None
    found = _TOOL_CALL.search(last.content)
    if not found:
        return None
    id = f"demo_call_{len(request.messages)}"
    return ToolCall(id, clean_text(found["name"]), clean_text(_first_value(found["arguments"].strip())) or "{}")


def _first_value(text: str) -> str:
    """The JSON value with which the text begins, as files may stand behind it; all of it if that is none."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return text
    return text[:end]


def _last_said(request: ModelRequest) -> ChatMessage | None:
    said = (m for m in reversed(request.messages) if isinstance(m, ChatMessage) and m.role == "user")
    return next(said, None)


def _shortly(text: str, most: int = 12) -> str:
    words = clean_text(text).split()
    short = " ".join(words[:most])
    return f"{short[:120]}…" if len(words) > most or len(short) > 120 else short


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _content(message: object) -> str:
    return str(getattr(message, "content", ""))


def _tokens(*texts: str) -> int:
    return sum(len(text) for text in texts) // _CHARACTERS_PER_TOKEN
