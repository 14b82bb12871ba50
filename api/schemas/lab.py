"""Trying out templates and scripts over REST, and what came of prompts."""

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import ConfigDict, Field

from api.schemas.model import Answer, Body, Flag, Text, at_most
from api.schemas.modules import Script
from api.schemas.templates import TemplateWarning, warnings_of
from db.ids import PersonaId, SessionId, UserId
from services.prompt.lab import STAND_IN, Resolved, Scene, Tried
from services.scripts.types import ScriptError

_LARGEST = 65_536


class TriedTurn(Body):
    """The turn in which something is tried out."""

    persona_id: UUID | None = Field(None, description="The session's if left out.")
    session_id: UUID | None = Field(None, description="Its messages, variables and memories can be read.")
    message: Annotated[Text, *at_most(_LARGEST)] | None = Field(
        None, description="What the user says; what was said last in the session if left out."
    )

    def scene(self, owner_id: UserId) -> Scene:
        """The same in the words of the lab."""
        return Scene(
            owner_id,
            self.persona_id and PersonaId(self.persona_id),
            self.session_id and SessionId(self.session_id),
            self.message,
        )


class TemplateTrial(TriedTurn):
    """A template to resolve."""

    template: Annotated[Text, *at_most(_LARGEST)]
    run_scripts: Flag = Field(True, description="Without it, modules with a script are silent.")
    run_ai: Flag = Field(False, description="Without it, modules whose script asks a model are silent.")


class ScriptTrial(TriedTurn):
    """A script to run."""

    script: Script
    content: Annotated[Text, *at_most(_LARGEST)] = Field("", description="The content of its module.")
    run_ai: Flag = Field(False, description=f"Without it, `generate` and `reflect` return `{STAND_IN}`.")


class ModuleTrace(Answer):
    """What became of a module."""

    model_config = ConfigDict(extra="allow")

    module: str
    version: int | None = Field(None, description="The version of the module that spoke.")
    state: str = Field(description="`spoke`, `silent`, `failed`, `stale` (it says what it said before) or `unknown`.")
    why: str = Field("", description="Why it did not speak.")
    characters: int = Field(0, description="Those that it has in the prompt where it stands first.")
    at: int | None = Field(None, description="How many characters of the prompt stand before those.")
    tokens: int = 0
    ms: int = Field(0, description="How long its script ran.")
    error: dict[str, Any] | None = Field(None, description="What went wrong in its script, and where.")


class PromptTrace(Answer):
    """How a prompt came about."""

    model_config = ConfigDict(extra="allow")

    modules: list[ModuleTrace]
    after: list[ModuleTrace] = Field(default_factory=list[ModuleTrace], description="Modules that ran after the reply.")
    warnings: list[str]


class ResolvedTemplate(Answer):
    """A template as the system prompt of a turn."""

    resolved_template: str
    warnings: list[TemplateWarning]
    resolved_modules: list[str] = Field(description="The modules whose text stands in it, in its order.")
    trace: PromptTrace

    @classmethod
    def of(cls, resolved: Resolved) -> Self:
        """What a client sees of it."""
        return cls(
            resolved_template=resolved.text,
            warnings=warnings_of(resolved.warnings),
            resolved_modules=list(resolved.modules),
            trace=PromptTrace.model_validate(resolved.trace),
        )


class ScriptFailure(Answer):
    """Why a script ended early. `line` and `column` count from 1; null where the place is not known."""

    type: str
    message: str
    line: int | None
    column: int | None

    @classmethod
    def of(cls, error: ScriptError) -> Self:
        """What a client sees of it."""
        return cls(type=error.type, message=error.message, line=error.line, column=error.column)


class TriedScript(Answer):
    """What a script did; after an error, what it had done until then."""

    success: bool
    outputs: dict[str, Any]
    resolved_content: str = Field(description="The text that its module would give; empty after an error.")
    printed: str
    logs: list[str]
    calls: int = Field(description="Calls of `ctx`.")
    error: ScriptFailure | None
    duration_ms: float

    @classmethod
    def of(cls, tried: Tried) -> Self:
        """What a client sees of it."""
        result = tried.result
        return cls(
            success=result.error is None,
            outputs=dict(result.outputs),
            resolved_content=tried.content,
            printed=result.printed,
            logs=list(result.logs),
            calls=result.calls,
            error=result.error and ScriptFailure.of(result.error),
            duration_ms=result.duration_ms,
        )
