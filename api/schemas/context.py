"""What a model is given of a session, over REST."""

from datetime import datetime
from typing import Literal, Self, assert_never
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer
from db.records import ContextSummaryRecord, MessageRole
from services.agent.types import ChatMessage, ModelMessage, ToolCallMessage, ToolResultMessage
from services.context.items import Group, Item
from services.contexts import ContextView
from services.conversation.compactor import Compaction

_PREVIEW_CHARACTERS = 200


class ContextItem(Answer):
    """One thing that the model is told of a message."""

    kind: Literal["text", "tool_call", "tool_result"]
    tokens: int
    preview: str = Field(description="How it begins.")
    files: list[str] = Field(description="Names of files that came with it, which cost tokens, too.")

    @classmethod
    def of(cls, item: Item) -> Self:
        """What a client sees of the item."""
        kind, text = _kind(item.message)
        files = [str(file.get("name", "")) for file in item.files]
        return cls(kind=kind, tokens=item.tokens, preview=text[:_PREVIEW_CHARACTERS], files=files)


class ContextMessage(Answer):
    """What the model is told of one message."""

    message_id: UUID
    role: MessageRole
    tokens: int
    in_window: bool = Field(description="It fits into the next window.")
    items: list[ContextItem]

    @classmethod
    def of(cls, group: Group, *, in_window: bool) -> Self:
        """What a client sees of it."""
        items = [ContextItem.of(item) for item in group.items]
        return cls(message_id=group.message_id, role=group.role, tokens=group.tokens, in_window=in_window, items=items)


class ContextSummary(Answer):
    """What stands for older messages."""

    kind: Literal["summary", "marker"] = Field(description="A marker only says that messages were left out.")
    message_id: UUID = Field(description="It stands for this message and everything before it.")
    text: str
    tokens: int
    summarized_messages: int
    tokens_before: int
    model: str | None
    created_at: datetime

    @classmethod
    def of(cls, record: ContextSummaryRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            kind=record.kind,
            message_id=record.message_id,
            text=record.text,
            tokens=record.token_count,
            summarized_messages=record.summarized_messages,
            tokens_before=record.tokens_before,
            model=record.model,
            created_at=record.created_at,
        )


class ContextParts(Answer):
    """What fills the next window, in tokens."""

    system: int = Field(description="The prompt, as it was for the newest reply.")
    tools: int
    summary: int
    history: int
    reserve: int = Field(description="Kept free for the answer.")


class Context(Answer):
    """What the model would be given next, before your next message. All tokens are estimates."""

    session_id: UUID
    provider: str
    model: str
    limit: int = Field(description="The model's window.")
    threshold: int = Field(description="From here on older messages are summarized.")
    tokens: int
    parts: ContextParts
    factor: float = Field(
        description="How much limits and parts were raised because the model's server counts more than we do;"
        " what single messages cost is told as we count it."
    )
    is_estimate: Literal[True] = True
    summary: ContextSummary | None
    messages: list[ContextMessage] = Field(description="What comes after the summary, oldest first.")
    has_older: bool = Field(description="There are older messages still, of which no summary tells.")

    @classmethod
    def of(cls, session_id: UUID, view: ContextView) -> Self:
        """What a client sees of the view."""
        first, room = len(view.groups) - view.in_window, view.room
        summary = room.told(view.summary.token_count) if view.summary else 0
        system, tools = room.told(room.prompt), room.told(room.tools)
        return cls(
            session_id=session_id,
            provider=view.provider,
            model=view.model,
            limit=room.window or room.limit,
            threshold=room.told(room.threshold),
            tokens=room.told(view.tokens),
            factor=round(room.factor, 3),
            parts=ContextParts(
                system=system,
                tools=tools,
                summary=summary,
                history=max(0, room.told(view.tokens) - system - tools - summary),
                reserve=room.told(room.reserve),
            ),
            summary=view.summary and ContextSummary.of(view.summary),
            messages=[ContextMessage.of(group, in_window=n >= first) for n, group in enumerate(view.groups)],
            has_older=view.goes_on,
        )


class Summarized(Answer):
    """What was done: tokens of the whole window before and after, and how many messages were replaced."""

    kind: Literal["summary", "marker"]
    before: int
    after: int
    summarized_messages: int

    @classmethod
    def of(cls, made: Compaction) -> Self:
        """What a client sees of it."""
        return cls(kind=made.kind, before=made.before, after=made.after, summarized_messages=made.messages)


def _kind(message: ModelMessage) -> tuple[Literal["text", "tool_call", "tool_result"], str]:
    match message:
        case ChatMessage(content=text):
            return "text", text
        case ToolCallMessage(content=text, calls=calls):
            return "tool_call", text + "; ".join(f"{call.name}({call.arguments})" for call in calls)
        case ToolResultMessage(content=text):
            return "tool_result", text
        case _:
            assert_never(message)
