"""Which tools a run has: what servers and the service itself offer, as far as session, persona and operator let it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.agent.agent import Answer, OnProgress, Tool
from services.agent.types import ToolSpec
from services.casting import Casting
from services.mcp.pool import McpPool
from services.mcp.types import McpTool
from services.runs.active import ActiveRun
from services.tools.arguments import ArgumentCheck
from services.tools.builtin import BUILT_IN
from services.tools.grants import Nature, Verdict, Words, is_enabled, verdict
from services.tools.scene import BuiltIn, Offer, Scene

_log = logging.getLogger(__name__)

_SPARE_SECONDS = 5.0
"""The pool knows best when a call takes too long; this is for a pool that does not come back."""


class Toolbox:
    """Finds the tools of runs."""

    def __init__(self, pool: McpPool, built_ins: Sequence[BuiltIn], reader: BuiltIn, *, most: int) -> None:
        """`reader` is there wherever other tools are; of those a run has at most `most`."""
        self.offers = tuple(offer for one in built_ins for offer in one.offers)
        """Our own tools, as people are told of them."""
        self._built_ins = tuple(built_ins)
        self._pool = pool
        self._reader = reader
        self._most = most

    async def open(self, run: ActiveRun, casting: Casting) -> tuple[Tool, ...]:
        """The tools of a run, each under a name of its own. A server that is away costs only its own."""
        scene = Scene(run, casting)
        found = [*await self._own(scene), *await self._of_servers(scene)]
        tools = {tool.spec.name: tool for tool in reversed(found)}
        chosen = list(reversed(tools.values()))[: self._most]
        if len(chosen) < len(found):
            _log.warning("run %s is offered %d of %d tools", run.record.id, len(chosen), len(found))
        if not chosen:
            return ()
        return (*chosen, *await self._reader.tools(scene))

    async def _own(self, scene: Scene) -> list[Tool]:
        words = scene.casting.tools
        allowed = {offer.name: self._allowed(words, offer) for offer in self.offers}
        asked = [
            one.tools(scene) for one in self._built_ins if any(allowed[offer.name] is not None for offer in one.offers)
        ]
        tools = [tool for found in await asyncio.gather(*asked) for tool in found]
        return [_agreed(tool, said) for tool in tools if (said := allowed[tool.spec.name]) is not None]

    def _allowed(self, words: Words, offer: Offer) -> Verdict | None:
        """What is said of one of our own tools; None if it is not to be used."""
        if not is_enabled(words, BUILT_IN, default=offer.by_default):
            return None
        said = verdict(words, Nature(BUILT_IN, offer.name))
        return None if said.grant == "never" else said

    async def _of_servers(self, scene: Scene) -> list[Tool]:
        words, record = scene.casting.tools, scene.run.record
        names = [
            server.name
            for server in self._pool.servers()
            if is_enabled(words, server.name, default=server.default) and server.name != BUILT_IN
        ]
        if not names:
            return []
        offered = await self._pool.tools(record.owner_id, record.session_id, names)
        for name, reason in offered.unavailable.items():
            _log.info("run %s does without the tools of %s: %s", record.id, name, reason)
        tools = (self._tool(scene, tool) for tool in offered.tools)
        return [tool for tool in tools if tool is not None]

    def _tool(self, scene: Scene, offered: McpTool) -> Tool | None:
        nature = Nature(
            offered.server, offered.name, offered.approval, destructive=offered.destructive, changed=offered.changed
        )
        said = verdict(scene.casting.tools, nature)
        if said.grant == "never":
            return None
        return Tool(
            ToolSpec(offered.qualified_name, offered.description, offered.parameters),
            _Remote(self._pool, scene, offered),
            server=offered.server,
            name_there=offered.name,
            check=ArgumentCheck(offered.parameters),
            approval=said.grant,
            reason=said.reason,
            timeout=offered.timeout + _SPARE_SECONDS,
        )


def _agreed(tool: Tool, said: Verdict) -> Tool:
    return replace(tool, approval="ask" if said.grant == "ask" else "auto", reason=said.reason)


class _Remote:
    """A tool of a server, for one run."""

    def __init__(self, pool: McpPool, scene: Scene, tool: McpTool) -> None:
        self._pool = pool
        self._scene = scene
        self._tool = tool

    async def __call__(self, arguments: Mapping[str, Any], progress: OnProgress) -> Answer:
        record = self._scene.run.record
        outcome = await self._pool.call(
            record.owner_id,
            record.session_id,
            self._tool.server,
            self._tool.name,
            arguments,
            on_progress=lambda news: progress(news.progress, news.total, news.message),
        )
        return Answer(outcome.text, outcome.is_error, outcome.truncated)
