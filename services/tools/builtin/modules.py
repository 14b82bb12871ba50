"""`run_module`: the model calls for one of the persona's modules that wait to be named."""

import asyncio

from services.agent.agent import Answer, Tool
from services.agent.types import ToolSpec
from services.prompt.on_demand import OnDemand
from services.tools.arguments import ArgumentCheck
from services.tools.scene import Offer, Scene, calling, schema

_SECONDS = 60.0


OFFER = Offer("run_module", "Asks one of the persona's modules that speak on demand, and gives what it says.")


class RunModule:
    """Lets a model ask for what a module has to say."""

    offers = (OFFER,)

    def __init__(self, on_demand: OnDemand) -> None:
        self._on_demand = on_demand

    async def tools(self, scene: Scene) -> list[Tool]:
        """Offers the modules that are attached to the persona and speak on demand; nothing without such."""
        modules = await self._on_demand.offered(scene.run.record, scene.casting)
        if not modules:
            return []
        one_by_one = asyncio.Lock()

        async def run(name: str) -> Answer:
            async with one_by_one:  # so that none can be begun twice
                said = await self._on_demand.run(scene.run, scene.casting, name)
            if said is None:
                return Answer("The module has nothing to say just now.", is_error=True)
            return Answer(said or "The module said nothing.")

        names = [module.name for module in modules]
        parameters = schema(("name",), name={"type": "string", "enum": names, "description": "Which module."})
        known = "\n".join(f"- {module.name}: {module.description or 'no description'}" for module in modules)
        spec = ToolSpec(OFFER.name, f"Runs a module and gives what it says. There are:\n{known}", parameters)
        return [Tool(spec, calling(run), check=ArgumentCheck(parameters), timeout=_SECONDS)]
