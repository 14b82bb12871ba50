"""What the service says about itself."""

from typing import Literal

from pydantic import Field

from api.schemas.model import Answer


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


class Health(Answer):
    """How the service is, part by part."""

    status: Literal["ok", "failing"]
    parts: list[HealthPart]


class ModelServer(Answer):
    """One approved model server."""

    name: str = Field(description="What sessions, personas and messages call it.")
    kind: Literal["openai", "ollama", "demo"]
    default_model: str | None


class PublicLimits(Answer):
    """What the service takes."""

    message_bytes: int
    body_bytes: int
    frame_bytes: int
    frames_per_minute: int
    connections_per_user: int
    runs_per_user: int
    queued_per_session: int


class Config(Answer):
    """What a client has to know before it begins."""

    version: str
    auth_mode: Literal["local"]
    default_provider: str
    default_model: str | None
    providers: list[ModelServer]
    limits: PublicLimits
