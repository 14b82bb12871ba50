"""What the descriptions of tools cost: they go with every call of a model."""

from collections import OrderedDict
from collections.abc import Sequence

import orjson

from services.agent.types import ToolSpec
from services.context.tokens import TokenCounter

_TOOL_OVERHEAD = 12
"""Tokens that a tool costs beyond the JSON of its description: each server words it a little differently."""
_REMEMBERED = 2_000


class ToolCosts:
    """Counts each description once and remembers it by its content."""

    def __init__(self, tokens: TokenCounter) -> None:
        self._tokens = tokens
        self._known: OrderedDict[bytes, int] = OrderedDict()

    async def of(self, tools: Sequence[ToolSpec]) -> int:
        """The tokens of all of them."""
        return sum([await self._cost(tool) for tool in tools])

    async def _cost(self, tool: ToolSpec) -> int:
        key = orjson.dumps([tool.name, tool.description, tool.parameters], default=dict)
        if key not in self._known:
            self._known[key] = _TOOL_OVERHEAD + await self._tokens.count(key.decode())
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
