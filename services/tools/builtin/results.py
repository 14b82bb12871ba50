"""`read_tool_result`: what a tool answered and did not fit."""

from db.stores.tool_calls import ToolCallStore
from services.agent.agent import Answer, Tool
from services.agent.types import ToolSpec
from services.tools.arguments import ArgumentCheck
from services.tools.results import READ_ON, ResultCutter
from services.tools.scene import Offer, Scene, calling, schema

_MOST_CHARACTERS = 100_000
_FARTHEST = 2**31 - 1


OFFER = Offer(READ_ON, "Reads the rest of a tool's result that was too long to be given at once.")


class ReadToolResult:
    """Reads on in results that were shortened; there wherever other tools are."""

    offers = (OFFER,)

    def __init__(self, store: ToolCallStore, cutter: ResultCutter) -> None:
        self._store = store
        self._cutter = cutter

    async def tools(self, scene: Scene) -> list[Tool]:
        """Reads the results of the scene's session."""
        record = scene.run.record

        async def read(id: str, offset: int = 0) -> Answer:
            found = await self._store.result(
                record.session_id, record.owner_id, id, offset=offset, characters=_MOST_CHARACTERS
            )
            if found is None:
                return Answer("There is no result with that id.", is_error=True)
            if offset >= found.length:
                return Answer(f"The result ends at character {found.length}.")
            return Answer(await self._cutter.cut(found.piece, id, offset=offset, whole=found.length))

        parameters = schema(
            ("id",),
            id={"type": "string", "description": "The id that stands where the result was shortened."},
            offset={"type": "integer", "minimum": 0, "maximum": _FARTHEST, "description": "Where to begin."},
        )
        spec = ToolSpec(OFFER.name, OFFER.description, parameters)
        return [Tool(spec, calling(read), check=ArgumentCheck(parameters))]
