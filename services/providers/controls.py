"""The controls that users may set, by the names that are the same for every provider."""

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from services.errors import InvalidControl, UnknownControl

Check = Callable[[Any], Any]
"""Returns the value to use, or raises ValueError with what would be right ("a number from 0 to 2")."""
Schema = Mapping[str, Any]
"""JSON Schema: the same for programs. What it lets through, the check may still refuse."""

_LARGEST_JSON = 65_536
_MOST_STOPS = 16
_LONGEST_STAY = 10**9
_LONGEST_STOP = 500
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+|-1")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Control:
    """One control: what it does, what it may be, and how that is checked."""

    about: str
    values: str
    check: Check
    schema: Schema


def _number(low: float, high: float) -> tuple[str, Check, Schema]:
    values = f"a number from {low:g} to {high:g}"

    def check(value: Any) -> float:
        # Comparing is enough: what is not finite is in no range, and a whole number of any size can be compared.
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(values)
        return value

    return values, check, {"type": "number", "minimum": low, "maximum": high}


def _integer(low: int, high: int) -> tuple[str, Check, Schema]:
    values = f"a whole number from {low} to {high}"

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(values)
        return value

    return values, check, {"type": "integer", "minimum": low, "maximum": high}


def _one_of(*choices: Any) -> tuple[str, Check, Schema]:
    values = "one of " + ", ".join(json.dumps(choice) for choice in choices)

    def check(value: Any) -> Any:
        # True == 1 in Python, but not in JSON.
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(values)
        return value

    words = [choice for choice in choices if isinstance(choice, str)]
    kinds: list[Schema] = [{"type": "string", "enum": words}] if words else []
    # Of true and false, whoever may have one may have the other; mixed lists are none that programs have a type for.
    kinds += [{"type": "boolean"}] if len(words) < len(choices) else []
    return values, check, kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _stop(value: Any) -> list[str]:
    stops: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    fine = [s for s in stops if isinstance(s, str) and 0 < len(s) <= _LONGEST_STOP and _is_storable(s)]
    if len(fine) != len(stops) or not 0 < len(stops) <= _MOST_STOPS:
        raise ValueError(_STOP_VALUES)
    return fine


_STOP_VALUES = f"a text or a list of up to {_MOST_STOPS} texts, none of them empty"
_ONE_STOP: Schema = {"type": "string", "minLength": 1, "maxLength": _LONGEST_STOP}
_STOP_SCHEMA: Schema = {
    "anyOf": [_ONE_STOP, {"type": "array", "items": _ONE_STOP, "minItems": 1, "maxItems": _MOST_STOPS}]
}


def _keep_alive(value: Any) -> str | int | float:
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and -_LONGEST_STAY <= value <= _LONGEST_STAY:
        return value
    raise ValueError(_KEEP_ALIVE_VALUES)


_KEEP_ALIVE_VALUES = 'seconds or a duration such as "5m"; -1 keeps the model loaded'
_KEEP_ALIVE_SCHEMA: Schema = {
    "anyOf": [
        {"type": "string", "pattern": f"^({_DURATION.pattern})$"},
        {"type": "number", "minimum": -_LONGEST_STAY, "maximum": _LONGEST_STAY},
    ]
}


def _response_format(value: Any) -> dict[str, Any]:
    if value in ("text", "json"):
        return {"type": value}
    given: Mapping[str, Any] = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    kind, schema = given.get("type"), given.get("schema")
    if kind in ("text", "json") and len(given) == 1:
        return {"type": kind}
    if (
        kind != "json_schema"
        or not isinstance(schema, Mapping)
        or not set(given) <= {"type", "schema", "name", "strict"}
    ):
        raise ValueError(_RESPONSE_FORMAT_VALUES)
    name, strict = given.get("name", "answer"), given.get("strict", True)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(strict, bool):
        raise ValueError(_RESPONSE_FORMAT_VALUES)
    return {"type": "json_schema", "name": name, "strict": strict, "schema": _plain_json(schema)}


_RESPONSE_FORMAT_SCHEMA: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["text", "json"]},
        {
            "type": "object",
            "properties": {"type": {"type": "string", "enum": ["text", "json"]}},
            "required": ["type"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "type": {"const": "json_schema"},
                "schema": {"type": "object"},
                "name": {"type": "string", "pattern": f"^{_NAME.pattern}$"},
                "strict": {"type": "boolean"},
            },
            "required": ["type", "schema"],
            "additionalProperties": False,
        },
    ]
}
_RESPONSE_FORMAT_VALUES = '"text", "json" or {"type": "json_schema", "schema": {…}, "name": "…", "strict": true}'


def _tool_choice(value: Any) -> str | dict[str, str]:
    if isinstance(value, str) and value in ("auto", "none", "required"):
        return value
    if isinstance(value, Mapping):
        given = cast(Mapping[str, Any], value)
        name = given.get("name")
        if set(given) == {"name"} and isinstance(name, str) and _NAME.fullmatch(name):
            return {"name": name}
    raise ValueError(_TOOL_CHOICE_VALUES)


_TOOL_CHOICE_SCHEMA: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["auto", "none", "required"]},
        {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": f"^{_NAME.pattern}$"}},
            "required": ["name"],
            "additionalProperties": False,
        },
    ]
}
_TOOL_CHOICE_VALUES = '"auto", "none", "required" or {"name": "a tool"}'


# What decides where a request goes, what it says and how the answer comes back is not a user's to set.
# fmt: off
_RESERVED_OPTIONS: Final = frozenset(
    {
        "model", "models", "messages", "input", "prompt", "instructions", "system", "stream",
        "stream_options", "tools", "functions", "function_call", "n", "best_of", "background",
        "previous_response_id", "conversation", "metadata", "user", "safety_identifier", "webhook", "host",
        "hostname", "base_url", "url", "endpoint", "api_base", "api_key", "apikey", "key", "token",
        "authorization", "auth", "headers", "extra_headers", "extra_query", "extra_body", "default_headers",
        "query", "organization", "project", "proxy", "proxies", "timeout", "max_retries", "http_client",
        "template", "raw", "suffix", "images",
    }
)
# fmt: on


def _provider_options(value: Any) -> dict[str, Any]:
    options = _plain_json(value)
    for name in options:
        if name.lower().replace("-", "_") in _RESERVED_OPTIONS:
            raise ValueError(f'an object without "{name[:40]}"')
        if name in CONTROLS:
            raise ValueError(f'an object without "{name}", which is a control of its own')
    return options


def _plain_json(value: Any) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("an object of plain JSON") from None
    if len(text) > _LARGEST_JSON:
        raise ValueError(f"an object of at most {_LARGEST_JSON} characters")
    if not text.startswith("{"):
        raise ValueError("an object")
    if not _is_storable(value):
        raise ValueError("an object without NUL characters, lone surrogates and numbers beyond 64 bits")
    return json.loads(text)


def _is_storable(value: Any) -> bool:
    """Whether PostgreSQL can keep it: a control is stored with the message that it belongs to."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case int():
            return -(2**63) <= value < 2**63
        case Mapping():
            pairs = cast(Mapping[str, Any], value).items()
            return all(_is_storable(name) and _is_storable(item) for name, item in pairs)
        case list():
            return all(_is_storable(item) for item in cast(list[Any], value))
        case _:
            return True


REASONING_LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")

CONTROLS: Final[Mapping[str, Control]] = {
    "temperature": Control("Randomness.", *_number(0, 2)),
    "top_p": Control("Nucleus sampling.", *_number(0, 1)),
    "top_k": Control("Sample from the k likeliest tokens only.", *_integer(0, 100_000)),
    "max_tokens": Control("The longest reply, in tokens.", *_integer(1, 10_000_000)),
    "stop": Control("Texts at which the reply ends.", _STOP_VALUES, _stop, _STOP_SCHEMA),
    "seed": Control("Makes sampling repeatable where the server can.", *_integer(-(2**31), 2**53)),
    "presence_penalty": Control("Against words that were used.", *_number(-2, 2)),
    "frequency_penalty": Control("Against words that were used often.", *_number(-2, 2)),
    "repeat_penalty": Control("Against repetition, as local models know it; 1 is none.", *_number(0, 10)),
    "reasoning_effort": Control("How long a reasoning model thinks.", *_one_of(*REASONING_LEVELS)),
    "verbosity": Control("How much the model says.", *_one_of("low", "medium", "high")),
    "response_format": Control(
        "The form of the reply.", _RESPONSE_FORMAT_VALUES, _response_format, _RESPONSE_FORMAT_SCHEMA
    ),
    "tool_choice": Control(
        "Whether the model may, must or must not call tools.", _TOOL_CHOICE_VALUES, _tool_choice, _TOOL_CHOICE_SCHEMA
    ),
    "parallel_tool_calls": Control("Several tool calls in one turn.", *_one_of(True, False)),
    "num_ctx": Control("The context window that Ollama sets up, in tokens.", *_integer(256, 10_000_000)),
    "keep_alive": Control(
        "How long Ollama keeps the model loaded.", _KEEP_ALIVE_VALUES, _keep_alive, _KEEP_ALIVE_SCHEMA
    ),
    "thinking": Control("Whether, or how hard, the model thinks.", *_one_of(True, False, "low", "medium", "high")),
    "provider_options": Control(
        "Fields that only one provider knows, sent as they are.", "an object", _provider_options, {"type": "object"}
    ),
}

# They ask for memory on the user's own machine; where there is no such machine, there is nothing to ask.
ONLY_HINTS: Final = frozenset({"num_ctx", "keep_alive"})


def validate_controls(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`raw` with every value checked and brought to one form; None means not set and is left out.

    Raises `UnknownControl` (`details`: `field`, `known`, `did_you_mean`) and `InvalidControl` (`field`, `expected`).
    """
    controls: dict[str, Any] = {}
    for name, value in raw.items():
        control = CONTROLS.get(name)
        if control is None:
            raise _unknown(name)
        if value is None:
            continue
        try:
            controls[name] = control.check(value)
        except ValueError as error:
            raise InvalidControl(f"{name} must be {error}.", field=name, expected=str(error)) from None
    return controls


def refuse_inexpressible(controls: Iterable[str], expressible: Collection[str], provider: str) -> None:
    """Raise `InvalidControl` for the first control that `provider` has no way to say; hints are let go."""
    for name in controls:
        if name not in expressible and name not in ONLY_HINTS:
            raise InvalidControl(
                f"The connection {provider} cannot express {name}.",
                field=name,
                provider=provider,
                known=sorted(expressible),
            )


def _unknown(name: str) -> UnknownControl:
    known = sorted(CONTROLS)
    shown = name[:60]
    near = difflib.get_close_matches(shown, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownControl(
        f"There is no control {shown}.{hint} Known are: {', '.join(known)}.",
        field=shown,
        known=known,
        did_you_mean=near[0] if near else None,
    )
