"""What the service says about itself."""

from typing import Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field

from api.schemas.model import Answer
from db.records import ConnectionRecord
from services.providers.controls import Control


class Alive(Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(Answer):
    """The service takes work."""

    status: Literal["ready"] = "ready"


class HealthPart(Answer):
    """How one part of the service is."""

    name: str
    status: Literal["ok", "failing"]
    detail: str
    ms: int = Field(description="How long it took to answer.")


class HealthInShort(Answer):
    """How the service is, for whom it does not know."""

    status: Literal["ok", "failing"]


class Health(HealthInShort):
    """How the service is, part by part."""

    parts: list[HealthPart]


class ModelServer(Answer):
    """One approved model server."""

    name: str = Field(description="What sessions, personas and messages call it.")
    id: UUID | None = Field(default=None, description="Another name of a connection that you have saved.")
    source: Literal["environment", "saved"] = Field(default="environment", description="The service's own, or yours.")
    kind: Literal["openai", "azure", "ollama", "demo"]
    default_model: str | None

    @classmethod
    def saved(cls, record: ConnectionRecord) -> Self:
        """What is told of a connection that its owner has saved."""
        model = record.deployment or record.default_model
        return cls(name=record.name, id=record.id, source="saved", kind=record.kind, default_model=model)


class Tool(Answer):
    """What a tool server offers to models."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="What the server and the `tools` of sessions and personas call it.")
    qualified_name: str = Field(description="What models and events call it.")
    description: str
    read_only: bool
    destructive: bool
    approval: Literal["auto", "ask", "never"] | None = Field(
        description="What the operator's configuration says; null if nothing."
    )


class ToolServer(Answer):
    """One server of the operator's configuration that offers tools."""

    name: str = Field(description="What the `tools` of sessions and personas call it.")
    description: str
    default: bool = Field(description="On, unless a persona or session says otherwise.")
    isolation: Literal["shared", "user", "session"] = Field(description="Who shares one running copy of it.")
    state: Literal["idle", "starting", "ready", "resting", "failing"] = Field(
        description="`idle`: nobody has needed it yet. `resting`: it ended, and starts when it is needed."
    )
    tools: list[Tool] | None = Field(description="Null while they are not known: before its first start.")


class PublicLimits(Answer):
    """What the service takes."""

    message_bytes: int
    file_bytes: int
    files_per_session: int
    body_bytes: int
    frame_bytes: int
    frames_per_minute: int
    connections_per_user: int
    runs_per_user: int
    queued_per_session: int
    image_bytes: int
    import_bytes: int
    tokens_per_user_day: int = Field(description="0: as many as you like.")


class BuiltInTool(Answer):
    """A tool of the service's own, which is offered where it has something to do."""

    name: str = Field(description="What models, events and the `tools` of sessions and personas call it.")
    description: str


class SamplingControl(Answer):
    """One of the controls."""

    name: str
    about: str
    values: str = Field(description="What it may be, for people.")
    value_schema: dict[str, Any] = Field(description="The same as JSON Schema.")

    @classmethod
    def of(cls, name: str, control: Control) -> Self:
        """What a client sees of a control."""
        return cls(name=name, about=control.about, values=control.values, value_schema=dict(control.schema))


class ConfigInShort(Answer):
    """What a client has to know before it signs in."""

    version: str
    auth_mode: Literal["local", "accounts"]
    registration: Literal["open", "invite", "closed"] = Field(description="Who may register, where there are accounts.")


class Config(ConfigInShort):
    """What a client has to know before it begins."""

    default_provider: str
    default_model: str | None
    providers: list[ModelServer] = Field(description="The service's own, then yours that are switched on.")
    tool_servers: list[ToolServer]
    built_in_tools: list[BuiltInTool] = Field(description="All of them belong to the server `builtin`.")
    reasoning_levels: list[str] = Field(description="What `reasoning_effort` may be; not every model knows each.")
    controls: list[SamplingControl] = Field(description="What `controls` of personas, sessions and messages may hold.")
    limits: PublicLimits
