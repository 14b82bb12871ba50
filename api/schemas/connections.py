"""Connections to model servers over REST."""

import string
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr

from api.schemas.model import Answer, Body, Name, NotNull, Text
from api.schemas.pages import Page
from db.records import ConnectionApi as Api
from db.records import ConnectionKind as Kind
from db.records import ConnectionRecord
from services.agent.types import ModelInfo
from services.connections.service import Connection as AnyConnection
from services.connections.trials import TrialResult

_IN_HEADERS = frozenset(string.ascii_letters + string.digits + string.punctuation)


def _sendable(key: SecretStr) -> SecretStr:
    if not set(key.get_secret_value()) <= _IN_HEADERS:
        raise ValueError("must have neither spaces nor other characters than ASCII has")
    return key


Key = Annotated[
    SecretStr,
    Field(min_length=1, max_length=4096, json_schema_extra={"writeOnly": True}),
    AfterValidator(_sendable),
]


def _printable(name: str) -> str:
    if not name.isprintable() or not name.strip("."):
        raise ValueError("must have printable characters, and others than dots")
    return name


ConnectionName = Annotated[
    Name,
    AfterValidator(_printable),
    Field(
        max_length=100,
        pattern="^[^/]+$",  # it stands in paths
        description="Unique among yours; not openai, azure, ollama or demo, which the service itself may have.",
    ),
]
Url = Annotated[Text, Field(max_length=2_000)]
Word = Annotated[Text, Field(min_length=1, max_length=200)]


class ConnectionSettings(Body):
    """How a model server is reached."""

    base_url: Url | None = Field(
        None,
        description="The server's address: for `openai` up to and including /v1 (null: OpenAI's own), for `azure` the "
        "endpoint of the resource, for `ollama` its host.",
    )
    api_key: Key | None = Field(None, description="Kept encrypted and never shown again.")
    api_version: Word | None = Field(None, description="Azure only; null for a version that is known to work.")
    deployment: Word | None = Field(None, description="Azure only: the deployment to ask where nobody names one.")
    default_model: Word | None = Field(None, description="The model to ask where nobody names one.")
    num_ctx: Annotated[int, Field(ge=256, le=16_777_216)] | None = Field(
        None, description="Ollama only: the window to set up, in tokens."
    )
    api: Annotated[Api, NotNull] = "chat_completions"

    def settings(self) -> dict[str, Any]:
        """The fields that the client sent, the key among them in the clear."""
        given = self.given()
        if self.api_key is not None:
            given["api_key"] = self.api_key.get_secret_value()
        return given


class ConnectionUpdate(ConnectionSettings):
    """The fields to change; those left out stay as they are, null clears."""

    name: Annotated[ConnectionName, NotNull] = ""
    kind: Annotated[Kind, NotNull] = "openai"
    is_active: Annotated[bool, NotNull] = Field(True, description="A connection that is off answers nobody.")


class ConnectionCreate(ConnectionUpdate):
    """A new connection."""

    name: ConnectionName  # pyright: ignore[reportGeneralTypeIssues]
    kind: Kind  # pyright: ignore[reportGeneralTypeIssues]


class ConnectionProbe(ConnectionSettings):
    """What to try: nothing for a connection as it is, or settings that are not saved."""

    model: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Let this model say a word, in place of asking for the list of models. It may cost something."
    )

    def settings(self) -> dict[str, Any]:
        """The settings that the client sent."""
        return {name: value for name, value in super().settings().items() if name != "model"}


class Connection(Answer):
    """An approved address of a model server, which sessions, personas and messages name."""

    id: UUID | None = Field(description="Null for a connection of the service itself, which has a name only.")
    name: str
    source: Literal["saved", "environment"] = Field(
        description="`environment`: the service's own, for everybody to use and for nobody to change here."
    )
    kind: Literal["openai", "azure", "ollama", "demo"]
    base_url: str | None
    api_version: str | None
    deployment: str | None
    default_model: str | None
    num_ctx: int | None
    api: Api | None
    is_active: bool
    has_key: bool | None = Field(description="Null where that is nobody's business.")
    last_four: str | None = Field(description="The end of the key, if it has 12 characters or more.")
    version: int | None = Field(description="Counts changes; also the ETag.")
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, connection: AnyConnection) -> Self:
        """What a client sees of it."""
        if isinstance(connection, ConnectionRecord):
            same = {name: getattr(connection, name) for name in cls.model_fields if hasattr(connection, name)}
            return cls(**same, source="saved", has_key=connection.sealed_key is not None)
        about = {"name": connection.name, "kind": connection.name, "default_model": connection.default_model}
        unknown = dict.fromkeys(cls.model_fields)
        return cls.model_validate({**unknown, **about, "source": "environment", "is_active": True})


class ConnectionPage(Page[Connection]):
    """Saved connections, newest first, then those of the service itself."""


class Fault(Answer):
    """What went wrong at the model server."""

    code: str = Field(examples=["provider_unreachable", "provider_authentication"])
    detail: str
    whose: Literal["caller", "provider"]
    retryable: bool


class ConnectionTest(Answer):
    """How a trial went."""

    works: bool
    ms: int = Field(description="How long it took.")
    models: int | None = Field(description="How many models the server lists; null if it was not asked.")
    answered: bool | None = Field(description="Whether the named model said something; null if none was named.")
    error: Fault | None

    @classmethod
    def of(cls, result: TrialResult) -> Self:
        """What a client sees of it."""
        error = result.error and Fault(
            code=result.error.code,
            detail=result.error.message,
            whose="caller" if result.error.whose == "caller" else "provider",
            retryable=result.error.retryable,
        )
        works = error is None and result.answered is not False
        return cls(works=works, ms=result.ms, models=result.models, answered=result.answered, error=error)


class OfferedModel(Answer):
    """A model that a server offers."""

    id: str
    context_window: int | None = Field(description="Tokens that it can take, where the server tells.")

    @classmethod
    def of(cls, info: ModelInfo) -> Self:
        """What a client sees of it."""
        return cls(id=info.id, context_window=info.context_window)


class OfferedModels(Answer):
    """What a server offers, by id."""

    models: list[OfferedModel]
