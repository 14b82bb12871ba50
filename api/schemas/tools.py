"""Tools over REST: which may be used, and the calls that wait for somebody's word."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field

from api.schemas.model import Answer, Body, Flag, Name
from db.records import ToolCallRecord
from services.tools.approvals import Word

MAX_SERVERS = 100
MAX_TOOLS = 200


class ServerGrant(Body):
    """What may be used of one server. `*` stands for all tools that are not named."""

    enabled: Flag = Field(True, description="Whether its tools are offered at all.")
    tools: dict[Name, Literal["auto", "ask", "never"]] = Field(default_factory=dict, max_length=MAX_TOOLS)


class ToolGrants(Body):
    """Which tools may be used; servers that are not named keep their own defaults.

    The service's own tools are those of the server `builtin`, which is off unless it is named.
    """

    servers: dict[Name, ServerGrant] = Field(default_factory=dict, max_length=MAX_SERVERS)


class CallDecision(Body):
    """Whether a call may be made."""

    decision: Literal["approve", "reject"]
    arguments: dict[str, Any] | None = Field(None, description="To be used in place of the model's own.")
    remember: Flag = Field(False, description="Make it the session's word on that tool: never to be asked again.")

    def word(self) -> Word:
        """What the service takes."""
        return Word(self.decision, self.arguments, self.remember)


class CallOfTool(Answer):
    """A call of a tool that somebody has to agree to."""

    tool_call_id: str
    run_id: str
    name: str = Field(description="What models and events call the tool.")
    server: str | None = Field(description="Null for a tool of the service itself.")
    arguments: str = Field(description="The JSON text that it is to be called with.")
    state: str
    reason: str | None
    expires_at: datetime | None

    @classmethod
    def of(cls, record: ToolCallRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            tool_call_id=record.id,
            run_id=str(record.run_id),
            name=record.name,
            server=record.server,
            arguments=record.arguments,
            state=record.state,
            reason=record.reason,
            expires_at=record.expires_at,
        )


class WaitingCalls(Answer):
    """The calls that wait for somebody's word, oldest first."""

    items: list[CallOfTool]
