"""`ctx`: asking a model. No database connection is held meanwhile; cancelling closes the model's stream."""

from collections.abc import Mapping

from services.agent.agent import Agent
from services.agent.collected import Collected
from services.agent.runner import Runner, Spoken
from services.agent.types import ChatMessage
from services.connections.directory import ConnectionDirectory
from services.prompt.view import TurnView
from services.providers.base import Provider
from services.providers.controls import validate_controls
from services.scripts.types import ScriptFault
from services.scripts.values import Json

ANSWER_BYTES = 256 * 1024

_ROLES = ("user", "assistant", "system")

_OF_REPLIES = frozenset({"tool_choice", "parallel_tool_calls", "response_format", "stop"})
"""Controls that say how a reply to the user is to look. What a script asks is not such a reply."""


class AiFunctions:
    """Asks models. Whatever goes wrong there is a `ColloquyError`, whose message the script is told."""

    def __init__(self, view: TurnView, connections: ConnectionDirectory) -> None:
        self._view = view
        self._connections = connections
        self.functions = (self.generate, self.reflect)

    async def generate(
        self,
        instructions: str,
        input: str | None,
        provider: str | None,
        model: str | None,
        controls: Mapping[str, Json],
    ) -> str:
        """Ask a model, by default the one that answers in this turn, with its controls.

        Another model gets the script's controls alone: what the one takes, the other may not know.
        """
        self._view.begin_generation()
        casting = self._view.casting
        owner_id = self._view.record.owner_id
        asked = await self._connections.get(owner_id, provider) if provider else casting.provider
        default = casting.model if asked is casting.provider else None
        chosen = await self._connections.model_for(asked, model or default)
        is_casting = asked is casting.provider and chosen == casting.model
        system, said = (instructions, input) if input is not None else ("", instructions)
        agent = Agent(chosen, system, self._controls(controls) if is_casting else validate_controls(controls))
        return await self._ask(asked, agent, ChatMessage("user", said))

    async def reflect(self, instructions: str, role: str, controls: Mapping[str, Json]) -> str:
        """Ask the model that answers in this turn: the system prompt so far, then the instructions by that role.

        Nothing of the conversation comes between. What a model makes of a last message that is not the user's is
        its own affair: many go on where an assistant's message ends.
        """
        if role not in _ROLES:
            raise ScriptFault("role must be user, assistant or system", "ValueError")
        self._view.begin_generation()
        casting = self._view.casting
        agent = Agent(casting.model, self._view.prompt, self._controls(controls))
        return await self._ask(casting.provider, agent, ChatMessage(role, instructions))

    def _controls(self, own: Mapping[str, Json]) -> dict[str, Json]:
        """The turn's controls, where the script does not say otherwise; its None takes one back."""
        inherited = {name: value for name, value in self._view.casting.controls.items() if name not in _OF_REPLIES}
        kept = {name: value for name, value in inherited.items() if name not in own}
        return {**kept, **validate_controls(own)}

    async def _ask(self, provider: Provider, agent: Agent, message: ChatMessage) -> str:
        if provider.kind == "demo":
            # What it says is meant for people; in a prompt it would pass for a model's words.
            raise ScriptFault("no model is connected, and the demo does not answer scripts")
        answer = Collected(ANSWER_BYTES)
        result = await Runner(provider).run(agent, Spoken(message), answer)
        if result.usage is not None:
            self._view.spend(result.usage)
        if result.reason == "refusal":
            raise ScriptFault(f"the model refused: {answer.refusal}" if answer.refusal else "the model refused")
        return answer.text
