"""How the service and a model talk: one vocabulary for all providers.

A request is a frozen value; an answer is a stream of `ModelEvent`s that ends with exactly one `Finish`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "tool_calls", "refusal"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for, whole. `arguments` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the model is told of a tool; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture for the model to look at: a PNG or JPEG, in Base64 as every protocol wants it."""

    media_type: str
    base64: str

    @property
    def data_url(self) -> str:
        """The picture as an address that holds it (RFC 2397)."""
        return f"data:{self.media_type};base64,{self.base64}"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of the window: text of a role, and for a user's the pictures that came with it."""

    role: Role
    content: str
    images: tuple[ImagePart, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallMessage:
    """An assistant turn that called tools, with the text that stood before the calls."""

    content: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ToolResultMessage:
    """What a tool answered to the call `call_id`."""

    call_id: str
    name: str
    content: str


ModelMessage = ChatMessage | ToolCallMessage | ToolResultMessage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model. `controls` carry the common names of `providers/controls.py`, already validated."""

    model: str
    messages: tuple[ModelMessage, ...]
    controls: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the reply's text; never empty, always valid Unicode without NUL."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's reasoning, kept apart from the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the model's refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. `output_tokens` includes `thinking_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum of two calls."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.thinking_tokens + other.thinking_tokens,
        )


def total(*usages: Usage | None) -> Usage | None:
    """The sum of what is known; None where nothing is."""
    known = [usage for usage in usages if usage is not None]
    return sum(known, Usage()) if known else None


@dataclass(frozen=True, slots=True)
class Finish:
    """The provider itself said that the turn is over. Nothing follows."""

    reason: FinishReason


ModelEvent = TextDelta | ThinkingDelta | RefusalDelta | ToolCall | Usage | Finish


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a provider offers; `context_window` in tokens where the provider tells it."""

    id: str
    context_window: int | None = None
