"""A session as a document."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer, Body, Controls, Flag, JsonObject, Metadata, Moment, Name, Text, Whole, at_most
from api.schemas.sessions import Session
from api.schemas.tools import ToolGrants
from db.records import ContextItemRecord, MessageRole, ResultState
from db.stores.transfer import Result, Summary, Variable
from services.importing import Document, ImportedFile, ImportedMessage, ImportedSession

_MOST_MESSAGES = 50_000
_MOST_OTHERS = 10_000
_LARGEST = 2**31 - 1

Id = Annotated[Text, Field(min_length=1, max_length=100)]
Words = Annotated[Text, *at_most(4_194_304)]
Short = Annotated[Text, Field(max_length=200)]


class DocumentSession(Body):
    """The settings of the session."""

    title: Annotated[Text, Field(max_length=200)] | None = None
    title_is_given: Flag = False
    pinned: Flag = False
    persona: Short | None = Field(None, description="Its name.")
    connection: Name | None = None
    model: Name | None = None
    controls: Controls = Field(default_factory=dict[str, Any])
    metadata: Metadata = Field(default_factory=dict[str, Any])
    tools: ToolGrants = Field(default_factory=ToolGrants)
    active_message_id: Id | None = Field(None, description="Where the active branch ends; by default the last message.")
    created_at: Moment


class DocumentCall(Body):
    """A call of a tool."""

    id: Text
    name: Text
    arguments: Words


class DocumentItem(Body):
    """One thing that the model was told of a message, where that is not the message itself."""

    role: Literal["user", "assistant", "system", "tool"]
    text: Words = ""
    calls: list[DocumentCall] | None = Field(None, max_length=1_000)
    call_id: Text | None = None
    name: Text | None = None
    files: list[JsonObject] | None = Field(None, max_length=1_000)
    message_id: Id | None = Field(None, description="A message of the user that is told here.")
    token_count: Whole = Field(0, ge=0, le=1_000_000)

    def to_record(self) -> ContextItemRecord:
        """The item as it is stored."""
        return ContextItemRecord(self.model_dump(exclude_none=True, exclude={"token_count"}), self.token_count)


class DocumentSummary(Body):
    """What stands in the context for a message and everything before it."""

    kind: Literal["summary", "marker"]
    text: Words
    summarized_messages: Whole = Field(ge=0, le=_LARGEST)
    tokens_before: Whole = Field(ge=0, le=_LARGEST)
    model: Short | None = None
    created_at: Moment


class DocumentMessage(Body):
    """A message. Ids mean something only within the document."""

    id: Id
    parent_id: Id | None = None
    role: MessageRole
    content: Words
    parts: list[JsonObject] = Field(default_factory=list[dict[str, Any]], max_length=10_000)
    finish_reason: Short | None = None
    stopped_by: Short | None = None
    provider: Short | None = None
    model: Short | None = None
    metadata: JsonObject = Field(default_factory=dict[str, Any])
    created_at: Moment
    updated_at: Moment
    context: list[DocumentItem] = Field(default_factory=list[DocumentItem], max_length=10_000)
    summary: DocumentSummary | None = None

    def to_message(self) -> ImportedMessage:
        """The same in the words of the service."""
        own = {"role", "content", "parts", "finish_reason", "stopped_by", "provider", "model", "metadata"}
        return ImportedMessage(
            self.id,
            self.parent_id,
            self.model_dump(include=own),
            self.created_at,
            self.updated_at,
            [item.to_record() for item in self.context],
            None if self.summary is None else Summary(**self.summary.model_dump()),
        )


class DocumentVariable(Body):
    """What a module's script remembers."""

    module: Short
    name: Text
    value: Any

    def to_variable(self) -> Variable:
        """The same in the words of the service."""
        return Variable(self.module, self.name, JsonBox.model_validate({"value": {"": self.value}}).value[""])


class JsonBox(Body):
    """Any JSON, checked."""

    value: JsonObject


class DocumentResult(Body):
    """The newest result of a module."""

    module: Short
    state: ResultState
    text: Words = ""
    outputs: JsonObject = Field(default_factory=dict[str, Any])
    created_at: Moment


class DocumentMemory(Body):
    """Something worth remembering."""

    content: Words
    first_message: Whole | None = Field(None, ge=0, lt=2**62)
    last_message: Whole | None = Field(None, ge=0, lt=2**62)
    metadata: JsonObject = Field(default_factory=dict[str, Any])
    created_at: Moment


class DocumentFile(Body):
    """A file of the session."""

    id: UUID
    name: Annotated[Text, Field(min_length=1, max_length=1_000)]
    media_type: Short | None = None
    size: Whole | None = None
    sha256: Short | None = None
    created_at: Moment | None = None
    data: str | None = Field(None, description="Its bytes in base64; null if it was left out.")
    note: Text | None = Field(None, description="Why it was left out.")


class SessionDocument(Body):
    """A session with everything that belongs to it, of all branches."""

    format: Literal["colloquy-session"]
    version: Literal[1]
    exported_at: Moment | None = None
    session: DocumentSession
    messages: list[DocumentMessage] = Field(default_factory=list[DocumentMessage], max_length=_MOST_MESSAGES)
    variables: list[DocumentVariable] = Field(default_factory=list[DocumentVariable], max_length=_MOST_OTHERS)
    results: list[DocumentResult] = Field(default_factory=list[DocumentResult], max_length=_MOST_OTHERS)
    memories: list[DocumentMemory] = Field(default_factory=list[DocumentMemory], max_length=_MOST_OTHERS)
    files: list[DocumentFile] = Field(default_factory=list[DocumentFile], max_length=1_000)

    def to_document(self) -> Document:
        """The same in the words of the service."""
        session = self.session
        settings = session.model_dump(exclude={"active_message_id", "created_at", "tools"})
        return Document(
            settings | {"tools": session.tools.model_dump(exclude_unset=True)},
            session.created_at,
            session.active_message_id,
            [message.to_message() for message in self.messages],
            [variable.to_variable() for variable in self.variables],
            [Result(one.module, one.state, one.text, one.outputs, one.created_at) for one in self.results],
            [memory.model_dump() for memory in self.memories],
            [ImportedFile(file.id, file.name, file.data) for file in self.files],
        )


class SessionImported(Answer):
    """The session that was made of a document."""

    session: Session
    warnings: list[str] = Field(description="What is not here as it was elsewhere.")

    @classmethod
    def of(cls, imported: ImportedSession) -> "SessionImported":
        """What a client sees of it."""
        return cls(session=Session.of(imported.session), warnings=list(imported.warnings))
