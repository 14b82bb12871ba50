"""`search_history`: what was said in this conversation, also what is not in the window any more."""

from db.stores.messages import Branch, Line, MessageStore
from services.agent.agent import Answer, Tool
from services.agent.types import ToolSpec
from services.tools.arguments import ArgumentCheck
from services.tools.scene import Offer, Scene, calling, schema

_SEARCHED_MESSAGES = 5_000
_MOST = 20
_MOST_BYTES = 64 * 1024
_QUERY_CHARACTERS = 1_000
_SHOWN_CHARACTERS = 2_000


OFFER = Offer(
    "search_history", "Finds earlier messages of this conversation, also those that are too old to be in view."
)


class SearchHistory:
    """Finds messages of the conversation, from its beginning to the message that is being answered."""

    offers = (OFFER,)

    def __init__(self, messages: MessageStore) -> None:
        self._messages = messages

    async def tools(self, scene: Scene) -> list[Tool]:
        """Looks into the branch that the scene's run answers."""
        record = scene.run.record
        branch = Branch(record.session_id, record.owner_id, record.user_message_id)

        async def search(query: str, limit: int = 5) -> Answer:
            found = await self._messages.search(
                branch, query[:_QUERY_CHARACTERS], steps=_SEARCHED_MESSAGES, limit=limit, max_bytes=_MOST_BYTES
            )
            others = [line for line in found if line.id != record.user_message_id]
            return Answer("\n\n".join(map(_told, others)) or "Nothing was found.")

        parameters = schema(
            ("query",),
            query={"type": "string", "minLength": 1, "description": "Words to look for."},
            limit={"type": "integer", "minimum": 1, "maximum": _MOST, "description": "How many messages at most."},
        )
        spec = ToolSpec(OFFER.name, OFFER.description, parameters)
        return [Tool(spec, calling(search), check=ArgumentCheck(parameters))]


def _told(line: Line) -> str:
    text = line.content[:_SHOWN_CHARACTERS]
    return f"[{line.created_at:%Y-%m-%d %H:%M} UTC] {line.role}: {text}{'…' if len(text) < len(line.content) else ''}"
