"""The reply as far as it has been shown, built from nothing but a run's events."""

import hashlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from db.ids import MessageId
from db.records import EventRecord
from services.runs.events import (
    ApprovalRequired,
    AssistantStart,
    MessageTaken,
    RefusalDelta,
    RunEvent,
    TextDelta,
    ThinkingDelta,
    ToolDone,
    ToolStart,
)

_DELTAS = {kind.type: kind for kind in (TextDelta, ThinkingDelta, RefusalDelta)}
_PART_OF = {TextDelta: "text", ThinkingDelta: "thinking", RefusalDelta: "refusal"}


class Draft:
    """Grows with every event, so the text that is stored cannot differ from the text that was shown."""

    def __init__(self) -> None:
        self.message_id: MessageId | None = None
        self.persona_id: UUID | None = None
        self.provider: str | None = None
        self.model: str | None = None
        self.size = 0
        """Bytes of all text, thinking, refusal and arguments of calls, in UTF-8."""
        self._text: list[str] = []
        self._parts: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        self._open: dict[str, dict[str, Any]] = {}

    @classmethod
    def of(cls, events: list[EventRecord]) -> "Draft":
        """The draft that these stored events of one run gave."""
        draft = cls()
        for event in events:
            if known := _parse(event.type, orjson.loads(event.body)):
                draft.add(known)
        return draft

    def add(self, event: RunEvent) -> None:
        """Take one event of the run, in order."""
        if isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
            self._add_delta(_PART_OF[type(event)], event.delta)
        elif isinstance(event, AssistantStart):
            self.message_id = MessageId(event.message_id)
            self.persona_id, self.provider, self.model = event.persona_id, event.provider, event.model
        elif isinstance(event, MessageTaken):
            self._add_part({"type": "user_message", "message_id": str(event.message_id)})
        elif isinstance(event, ToolStart | ApprovalRequired):
            self._begin_call(event)
        elif isinstance(event, ToolDone):
            self._end_call(event)

    @property
    def text(self) -> str:
        """All text deltas joined."""
        return "".join(self._text)

    @property
    def text_sha256(self) -> str:
        """Over the UTF-8 bytes of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Text, thinking, refusal and tool calls in the order in which they came."""
        self._end_part()
        return self._parts

    @property
    def has_spoken(self) -> bool:
        """Whether the model has said anything that is not a call."""
        return any("text" in part for part in self._parts)

    @property
    def tool_calls(self) -> list[str]:
        """Ids of all tool calls."""
        return [part["id"] for part in self._parts if part["type"] == "tool_call"]

    @property
    def open_tool_calls(self) -> list[str]:
        """Ids of tool calls that have no result yet, those that wait for somebody's word among them."""
        return list(self._open)

    def _begin_call(self, event: ToolStart | ApprovalRequired) -> None:
        known = self._open.get(event.tool_call_id)
        if known is not None:
            # Somebody has agreed to it, maybe with other arguments.
            known["arguments"] = event.arguments
            return
        part = {
            "type": "tool_call",
            "id": event.tool_call_id,
            "name": event.name,
            "server": event.server,
            "arguments": event.arguments,
        }
        self.size += len(event.arguments.encode())
        self._open[event.tool_call_id] = part
        self._add_part(part)

    def _end_call(self, event: ToolDone) -> None:
        self._open.pop(event.tool_call_id, None)
        self._add_part(
            {
                "type": "tool_result",
                "id": event.tool_call_id,
                "status": event.status,
                "result": event.result,
                "truncated": event.truncated,
                "ms": event.ms,
            }
        )

    def _add_delta(self, kind: str, delta: str) -> None:
        if kind == "text":
            self._text.append(delta)
        self.size += len(delta) if delta.isascii() else len(delta.encode())
        if not self._parts or self._parts[-1]["type"] != kind:
            self._add_part({"type": kind, "text": ""})
        self._pieces.append(delta)

    def _add_part(self, part: dict[str, Any]) -> None:
        self._end_part()
        self._parts.append(part)

    def _end_part(self) -> None:
        if self._pieces:
            self._parts[-1]["text"] += "".join(self._pieces)
            self._pieces = []


def _parse(type: str, body: Mapping[str, Any]) -> RunEvent | None:
    """The stored event, if it is one that a reply is made of."""
    match type:
        case TextDelta.type | ThinkingDelta.type | RefusalDelta.type:
            return _DELTAS[type](body["delta"])
        case MessageTaken.type:
            return MessageTaken(UUID(body["message_id"]))
        case AssistantStart.type:
            persona_id = body["persona_id"] and UUID(body["persona_id"])
            return AssistantStart(UUID(body["message_id"]), persona_id, body["provider"], body["model"])
        case ToolStart.type:
            return ToolStart(body["tool_call_id"], body["name"], body["server"], body["arguments"])
        case ApprovalRequired.type:
            return ApprovalRequired(
                body["tool_call_id"],
                body["name"],
                body["server"],
                body["arguments"],
                body["reason"],
                body["expires_at"],
            )
        case ToolDone.type:
            return ToolDone(body["tool_call_id"], body["status"], body["result"], body["truncated"], body["ms"])
        case _:
            return None
