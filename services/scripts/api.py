"""`ctx`: every function that a script can call, declared once.

The dispatcher's allow-list, the checking of arguments, the list for editors and the type stubs all come from the
signatures and docstrings below. What a function does stands in `functions.py`, or with the `ScriptHost`.

The docstrings are read by people who write scripts.
"""

import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, get_args, get_origin

from services.scripts.types import ScriptFault
from services.scripts.values import Json, NotPlain, plain_each

TIME_FORMAT = "%Y-%m-%d %H:%M"


class State(Protocol):
    """Outputs of this run, and variables that this module keeps in this session."""

    def set_output(self, name: str, value: Json) -> None:
        """Set an output: the module's text reads it as ${name}, others as ${module.name}."""

    def get_output(self, name: str) -> Json:
        """An output that this run has set, or None."""

    def get_variable(self, name: str, default: Json = None) -> Json:
        """A variable that an earlier run of this module kept in this session, or the default."""

    def set_variable(self, name: str, value: Json) -> None:
        """Keep a variable for later runs of this module in this session."""

    def get_all_variables(self) -> dict[str, Json]:
        """All variables of this module in this session, by name."""
        ...

    def get_module_output(self, module: str, name: str) -> Json:
        """The newest finished output of another module in this session, or None."""

    def run_module(self, name: str) -> str:
        """Run another module of yours, once per turn, and return its text."""
        ...

    def log(self, text: Json) -> None:
        """Write a line that the module's author can read beside the result."""


class Time(Protocol):
    """Formats are strftime's; the time zone is yours unless one is named, such as Europe/Vienna."""

    def get_current_time(self, format: str = TIME_FORMAT, timezone: str | None = None) -> str:
        """The time now."""
        ...

    def get_relative_time(self, minutes_offset: float, format: str = TIME_FORMAT) -> str:
        """The time some minutes from now; negative for the past."""
        ...

    def is_business_hours(self, start_hour: int = 9, end_hour: int = 17, timezone: str | None = None) -> bool:
        """Whether it is Monday to Friday and the hour is at least start_hour and less than end_hour."""
        ...

    def get_day_of_week(self, full_name: bool = True) -> str:
        """Today's name in English, such as Monday, or Mon."""
        ...

    def format_timestamp(self, ts: float | str, format: str = TIME_FORMAT) -> str:
        """A time given as Unix seconds or as ISO text."""
        ...


class Conversation(Protocol):
    """What was said in this session, or in another session of yours given by its id.

    A message is a dictionary with id, role, content and created_at (ISO text).
    """

    def get_message_count(self, session_id: str | None = None) -> int:
        """How many messages there are."""
        ...

    def get_recent_messages(self, limit: int = 10, session_id: str | None = None) -> str:
        """The newest messages, oldest first, as lines "[HH:MM] Role: text"."""
        ...

    def get_raw_recent_messages(self, limit: int = 10, session_id: str | None = None) -> list[dict[str, Json]]:
        """The newest messages, oldest first."""
        ...

    def get_message_range(
        self, start: int = 0, end: int | None = None, session_id: str | None = None
    ) -> list[dict[str, Json]]:
        """Messages by position: 0 is the oldest, end is exclusive, None for up to the newest."""
        ...

    def get_conversation_history(
        self, limit: int = 50, offset: int = 0, session_id: str | None = None
    ) -> list[dict[str, Json]]:
        """Messages oldest first, leaving out the newest `offset` of them."""
        ...

    def get_conversation_summary(self, session_id: str | None = None) -> str:
        """The summary of what no longer fits the model's window, or empty text."""
        ...

    def get_persona_info(self) -> dict[str, Json]:
        """The session's persona: name, description, mode; empty without one."""
        ...

    def get_user_message(self) -> str:
        """The user's message of this turn."""
        ...

    def get_ai_response(self) -> str:
        """The reply of this turn, or of the turn before if this one has none yet."""
        ...

    def search_messages(self, query: str, limit: int = 10, session_id: str | None = None) -> list[dict[str, Json]]:
        """Messages in which the words occur, best first."""
        ...


class Memory(Protocol):
    """What scripts keep of a session beyond the model's window.

    The buffer are the messages that no memory covers yet; the first has index 0.
    """

    def get_buffer_messages(self, start_index: int = 0, end_index: int | None = None) -> list[dict[str, Json]]:
        """Messages of the buffer; end_index is inclusive, None for up to the newest."""
        ...

    def should_compress_buffer(self, max_messages: int = 20, max_tokens: int = 4_000) -> bool:
        """Whether the buffer has more messages or more tokens than that."""
        ...

    def should_compress_buffer_by_ids(self, ids: list[str], max_messages: int = 20, max_tokens: int = 4_000) -> bool:
        """Whether the messages with these ids are more, or have more tokens, than that."""
        ...

    def store_memory(
        self, content: str, message_range: list[int] | None = None, metadata: dict[str, Json] | None = None
    ) -> str:
        """Keep a memory and return its id; message_range is [first, last] by position, inclusive."""
        ...

    def get_recent_memories(self, limit: int = 5) -> list[dict[str, Json]]:
        """The newest memories, newest first, each with id, content, metadata and created_at."""
        ...

    def search_memories(self, query: str, limit: int = 5) -> list[dict[str, Json]]:
        """Memories in which the words occur, best first."""
        ...

    def get_memory_status(self) -> dict[str, Json]:
        """Counts: memories, buffer_messages, buffer_tokens, total_messages."""
        ...

    def clear_memories(self) -> int:
        """Forget this session's memories and return how many there were."""
        ...


class Ai(Protocol):
    """Asking a model. The script waits; a failure is a RuntimeError, which it may catch."""

    def generate(
        self,
        instructions: str,
        input: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        **controls: Json,
    ) -> str:
        """Ask a model: with an input, instructions are the system message; without, they are the user's."""
        ...

    def reflect(self, instructions: str, role: str = "user", **controls: Json) -> str:
        """Ask the persona's model, with the current system prompt before the instructions."""
        ...


class Text(Protocol):
    """Text and data."""

    def to_json(self, value: Json, indent: int | None = None) -> str:
        """A value as JSON text."""
        ...

    def from_json(self, text: str) -> Json:
        """The value that JSON text stands for; ValueError if it is not JSON."""

    def join_strings(self, strings: list[str], separator: str = ", ") -> str:
        """The strings as one, with the separator between them."""
        ...

    def split_string(self, text: str, separator: str | None = None) -> list[str]:
        """The parts of the text between separators; without one, its words."""
        ...

    def count_words(self, text: str) -> int:
        """How many words the text has, as divided by white space."""
        ...

    def count_tokens(self, text: str) -> int:
        """About how many tokens the text costs a model."""
        ...


_CATEGORIES: Mapping[str, type] = {
    "state": State,
    "time": Time,
    "conversation": Conversation,
    "memory": Memory,
    "ai": Ai,
    "text": Text,
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as an editor shows it. A variadic one takes further arguments by any name."""

    name: str
    type: str
    required: bool
    default: Json
    variadic: bool


@dataclass(frozen=True)
class PluginFunction:
    """One function of `ctx`."""

    name: str
    category: str
    docstring: str
    needs_ai: bool
    signature: inspect.Signature

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """In the order in which they may be given without names."""
        return tuple(_described(parameter) for parameter in self.signature.parameters.values())

    @cached_property
    def returns(self) -> str:
        """The type of the result."""
        return _written(self.signature.return_annotation)

    @cached_property
    def usage(self) -> str:
        """The signature as one line: `name(parameter: type = default) -> type`."""
        written = ", ".join(map(_written_parameter, self.signature.parameters.values()))
        return f"{self.name}({written}) -> {self.returns}"

    @cached_property
    def snippet(self) -> str:
        """What an editor inserts: a call with the parameters that must be given."""
        required = ", ".join(parameter.name for parameter in self.parameters if parameter.required)
        return f"{self.name}({required})"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Json]:
        """Every parameter's value, checked, with defaults filled in.

        Raises:
            ScriptFault: the arguments do not fit; the message says which and why.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ScriptFault(f"ctx.{self.name}(): {error}", "TypeError") from None
        bound.apply_defaults()
        try:
            values = plain_each(bound.arguments)
        except NotPlain as error:
            raise ScriptFault(f"ctx.{self.name}(): {error}", "ValueError") from None
        for name, value in values.items():
            parameter = self.signature.parameters[name]
            if parameter.kind is not parameter.VAR_KEYWORD and not _fits(value, parameter.annotation):
                expected = _written(parameter.annotation)
                kind = type(value).__name__
                raise ScriptFault(f"ctx.{self.name}(): {name} must be {expected}, not {kind}", "TypeError")
        return values


def plugin_functions() -> tuple[PluginFunction, ...]:
    """Every function of `ctx`, by category, in the order of the declaration."""
    return tuple(
        PluginFunction(
            name=name,
            category=category,
            docstring=inspect.getdoc(function) or "",
            needs_ai=category == "ai",
            signature=_without_self(function),
        )
        for category, declaration in _CATEGORIES.items()
        for name, function in vars(declaration).items()
        if inspect.isfunction(function) and not name.startswith("_")
    )


def type_stubs(functions: Sequence[PluginFunction]) -> str:
    """The declaration of `ctx` against which a script's types are checked."""
    lines = ["from typing import Any", "Json = Any", "class Context:"]
    for function in functions:
        parameters = ", ".join(["self", *map(_written_parameter, function.signature.parameters.values())])
        lines += [
            f"    def {function.name}({parameters}) -> {function.returns}:",
            f"        {function.docstring!r}",
            "        ...",
        ]
    return "\n".join([*lines, "ctx: Context", ""])


def _without_self(function: types.FunctionType) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _described(parameter: inspect.Parameter) -> Parameter:
    variadic = parameter.kind is parameter.VAR_KEYWORD
    required = parameter.default is parameter.empty and not variadic
    default: Any = None if parameter.default is parameter.empty else parameter.default
    return Parameter(parameter.name, _written(parameter.annotation), required, default, variadic)


def _written_parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {_written(parameter.annotation)}{default}"


def _written(annotation: Any) -> str:
    """The annotation as it stands in the source."""
    if annotation == Json:
        return "Json"
    if annotation is None or annotation is types.NoneType:
        return "None"
    if isinstance(annotation, types.UnionType):
        return " | ".join(map(_written, get_args(annotation)))
    if origin := get_origin(annotation):
        return f"{origin.__name__}[{', '.join(map(_written, get_args(annotation)))}]"
    return annotation.__name__


def _fits(value: Json, annotation: Any) -> bool:
    """Whether a plain value has the declared type; a float may be written as an integer, a truth value is no number."""
    if annotation == Json:
        return True
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, option) for option in get_args(annotation))
    match get_origin(annotation):
        case origin if origin is list:
            return isinstance(value, list) and all(_fits(item, get_args(annotation)[0]) for item in value)
        case origin if origin is dict:
            return isinstance(value, dict) and all(_fits(item, get_args(annotation)[1]) for item in value.values())
        case _ if annotation is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _ if annotation is int:
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, annotation)
