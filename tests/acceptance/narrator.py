"""A model server that answers each question by the script for it, in whatever order questions come."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from aiohttp import web

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Pause, Script, Step, Text
from tests.fakes.server import Exchange, Recorded

_WORDS = (
    "and", "then", "naïve ", "  ", "\n\n", "日本語", "🙂", "👩‍👩‍👧", '"quoted"', "\\n", "e\u0301", "\u2028", "Straße ",
    "</b>", "{}", "'", "\t", "a much longer piece of text that a model might send at once, "
)  # fmt: skip


class Narrator(OpenAIFake):
    """OpenAI's protocol; what is said depends on the newest message of the user."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Script] = {}
        self._asked: dict[str, list[Recorded]] = {}
        self.model_list = asyncio.Event()
        """Cleared, questions for the list of models are left waiting."""
        self.model_list.set()
        self.asked_model_list = 0
        """How often the list of models was asked for."""
        self.left_model_list: list[float] = []
        """The monotonic times at which somebody stopped waiting for the list of models."""

    def tell(self, question: str, *steps: Step) -> None:
        """Whenever this is asked, answer by these steps."""
        self._told[question] = Script(steps)

    def asked(self, question: str) -> list[Recorded]:
        """The requests for an answer to that question, oldest first."""
        return self._asked.get(question, [])

    @property
    def is_quiet(self) -> bool:
        """Whether every exchange is over."""
        return all(request.closed.done() for request in self.requests)

    async def answer(self, request: web.Request, exchange_for: Callable[[Recorded], Exchange]) -> web.StreamResponse:
        question = json.loads(await request.text())["messages"][-1]["content"]

        def noted(recorded: Recorded) -> Exchange:
            self._asked.setdefault(question, []).append(recorded)
            return exchange_for(recorded)

        if question in self._told:
            # Nothing else can take it: the body has been read, so there is no pause before scripts are given out.
            self._scripts.appendleft(self._told[question])
        return await super().answer(request, noted)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.asked_model_list += 1
        try:
            await self.model_list.wait()
        except asyncio.CancelledError:
            self.left_model_list.append(monotonic())
            raise
        return await super()._models(request)


def story(chance: random.Random, pieces: int) -> list[str]:
    """Pieces of text with all that is hard to carry: scripts, joiners, quotes, control characters, blanks."""
    return ["".join(chance.choices(_WORDS, k=chance.randint(1, 4))) for _ in range(pieces)]


def at_pace(pieces: Sequence[str], seconds: float) -> Iterator[Step]:
    """The pieces, each followed by that pause."""
    for piece in pieces:
        yield Text(piece)
        yield Pause(seconds)
