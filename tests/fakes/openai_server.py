"""A fake of OpenAI's API, of Azure's paths to it, and of the servers that imitate it.

`python -m tests.fakes.openai_server --port 0 --rate 50 --deltas 100` runs a fast one for benchmarks and prints its
base URL: every stream gets that many deltas at that many per second.
"""

from typing import Any

from aiohttp import web

from tests.fakes.chat_exchange import ChatExchange
from tests.fakes.firehose import run_from_command_line
from tests.fakes.responses_exchange import ResponsesExchange
from tests.fakes.server import FakeServer


class OpenAIFake(FakeServer):
    """An OpenAI server in this process.

    `url` is the base URL for a plain client, `root` the endpoint for an Azure client. `models` is what
    `/v1/models` lists; requests to unknown paths are 404.
    """

    models: list[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.models = [{"id": "fake-small", "object": "model", "context_length": 16_384}]

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.root}/v1"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/chat/completions", self._chat),
            web.post("/openai/deployments/{deployment}/chat/completions", self._chat),
            web.post("/v1/responses", self._responses),
            web.post("/openai/responses", self._responses),
            web.get("/v1/models", self._models),
            web.get("/openai/models", self._models),
        ]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, ChatExchange)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, ResponsesExchange)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self.look_up(request)
        return web.json_response({"object": "list", "data": self.models})


if __name__ == "__main__":
    run_from_command_line()
