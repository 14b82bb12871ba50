"""Modules over REST."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas.model import Answer, Body, Flag, NotNull, Text, Whole, at_most
from api.schemas.pages import Page
from db.records import ExecutionContext, ModuleRecord, ModuleType
from services.modules import ScriptAnalysis
from services.scripts.analysis import Problem
from services.scripts.api import PluginFunction

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_LARGEST = 65_536


def _nameable(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "must begin with a small letter a to z and go on with small letters, digits and _, 50 characters at most, "
            "so that templates can name it"
        )
    return value


ModuleName = Annotated[
    Text,
    AfterValidator(_nameable),
    Field(
        description="Unique among your modules; templates say @name.",
        examples=["mood"],
        json_schema_extra={"pattern": f"^{_NAME.pattern}$"},
    ),
]
Script = Annotated[Text, *at_most(_LARGEST)]


class ModuleUpdate(Body):
    """The fields to change; those left out stay as they are, null clears."""

    name: Annotated[ModuleName, NotNull] = ""
    description: Annotated[Text, Field(max_length=2_000)] | None = None
    type: Annotated[ModuleType, NotNull] = Field(
        "simple", description="`simple`: the content alone. `advanced`: its script runs first, and sets outputs."
    )
    content: Annotated[Text, *at_most(_LARGEST)] | None = Field(
        None, description="Template text; of an advanced module without it, the outputs are its text."
    )
    script: Script | None = Field(None, description="A small Python program that sees `ctx` and nothing else.")
    trigger_pattern: Annotated[Text, Field(max_length=2_000)] | None = Field(
        None,
        description="When it speaks: null, empty or `*` for always, keywords separated by `|`, or `/a pattern/flags`.",
        examples=["weather|rain"],
    )
    trigger_depth: Annotated[Whole, Field(ge=1, le=50), NotNull] = Field(
        1, description="In how many of the newest user messages the trigger is looked for."
    )
    execution_context: Annotated[ExecutionContext, NotNull] = Field(
        "IMMEDIATE", description="Before the reply, after it, or only when it is named."
    )
    timeout_ms: Annotated[Whole, Field(ge=10, le=300_000)] | None = Field(
        None, description="How long its script may take; null for the service's own limit."
    )
    is_active: Annotated[Flag, NotNull] = True

    def changes(self) -> dict[str, Any]:
        """The record's fields that the client sent."""
        cleared = {"description": "", "content": "", "script": ""}
        return {name: cleared.get(name) if value is None else value for name, value in self.given().items()}


class ModuleCreate(ModuleUpdate):
    """A new module."""

    name: ModuleName  # pyright: ignore[reportGeneralTypeIssues]


class Module(Answer):
    """A part of prompts."""

    id: UUID
    name: str
    description: str
    type: ModuleType
    content: str
    script: str
    trigger_pattern: str | None
    trigger_depth: int
    execution_context: ExecutionContext
    timeout_ms: int | None
    is_active: bool
    requires_ai: bool = Field(description="Whether its script may ask a model; found by reading it.")
    analysis: dict[str, Any] | None = Field(description="What was read from its script.")
    references: list[str] = Field(description="The modules that its content names.")
    version: int = Field(description="Counts changes; also the ETag.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: ModuleRecord) -> Self:
        """What a client sees of the record."""
        return cls(
            id=record.id,
            name=record.name,
            description=record.description,
            type=record.type,
            content=record.content,
            script=record.script,
            trigger_pattern=record.trigger_pattern,
            trigger_depth=record.trigger_depth,
            execution_context=record.execution_context,
            timeout_ms=record.timeout_ms,
            is_active=record.is_active,
            requires_ai=record.requires_ai,
            analysis=record.analysis,
            references=record.refers_to,
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ModulePage(Page[Module]):
    """Modules, newest first."""


class FunctionParameter(Answer):
    """One parameter of a function of `ctx`."""

    name: str
    type: str
    required: bool
    default: Any
    variadic: bool = Field(description="Takes further arguments by any name.")


class Function(Answer):
    """One function of `ctx`."""

    name: str
    category: str
    description: str
    needs_ai: bool = Field(description="A script that names it runs in the stage for scripts that ask a model.")
    parameters: list[FunctionParameter]
    returns: str
    usage: str = Field(description="The signature as one line.")
    snippet: str = Field(description="What an editor inserts.")

    @classmethod
    def of(cls, function: PluginFunction) -> Self:
        """What a client sees of the declaration."""
        return cls(
            name=function.name,
            category=function.category,
            description=function.docstring,
            needs_ai=function.needs_ai,
            parameters=[
                FunctionParameter(
                    name=parameter.name,
                    type=parameter.type,
                    required=parameter.required,
                    default=parameter.default,
                    variadic=parameter.variadic,
                )
                for parameter in function.parameters
            ],
            returns=function.returns,
            usage=function.usage,
            snippet=function.snippet,
        )


class Functions(Answer):
    """Everything that a script can call."""

    items: list[Function]

    @classmethod
    def of(cls, functions: Sequence[PluginFunction]) -> Self:
        """What a client sees of the declarations."""
        return cls(items=[Function.of(function) for function in functions])


class ScriptSource(Body):
    """A script to read; it is not run."""

    script: Script


class ScriptProblem(Answer):
    """Something wrong in a script."""

    line: int = Field(description="Counts from 1.")
    column: int = Field(description="Counts from 1.")
    message: str

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """What a client sees of it."""
        return cls(line=problem.line, column=problem.column, message=problem.message)


class ScriptFindings(Answer):
    """What was read from a script."""

    is_valid: bool = Field(description="It can be saved.")
    requires_ai: bool = Field(description="It may ask a model; in doubt it may.")
    functions: list[str] = Field(description="The functions of `ctx` that it names.")
    outputs: list[str] = Field(description="The outputs that it sets, as far as they are written out.")
    references: list[str] = Field(description="The modules that it runs or reads, as far as they are written out.")
    problems: list[ScriptProblem]

    @classmethod
    def of(cls, found: ScriptAnalysis) -> Self:
        """What a client sees of it."""
        return cls(
            is_valid=not found.problems,
            requires_ai=found.analysis.requires_ai,
            functions=list(found.analysis.functions),
            outputs=list(found.analysis.outputs),
            references=list(found.analysis.references),
            problems=[ScriptProblem.of(problem) for problem in found.problems],
        )
