"""Pictures in messages, and models that cannot look at them. Pure."""

import re
from collections.abc import Sequence
from dataclasses import replace

from services.agent.types import ChatMessage, ModelMessage

_SIGHT = r"(images?|image_url|input_image|vision|multi-?modal)\b(?! (format|type|size|media))"
REFUSED = re.compile(
    rf"(not|n't|no|cannot) (support|accept|take|handle)\w*.{{0,40}}\b{_SIGHT}"
    rf"|\b{_SIGHT}.{{0,40}}(not support|unsupported|only supported|not enabled|not available|not allowed)"
    r"|not a (multi-?modal|vision)|no endpoints? .{0,60}image|mmproj"
    r"|unknown variant `?(image_url|input_image)|at most 0 image|content must be a string",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a model takes no pictures; each has words of its own."""

_UNSEEN = "[{} came with this message, but you cannot look at pictures. Say so if it matters.]"


def has_pictures(messages: Sequence[ModelMessage]) -> bool:
    """Whether any of the messages brings a picture."""
    return any(isinstance(message, ChatMessage) and message.images for message in messages)


def without_pictures(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The messages with word of their pictures in place of these."""
    return [_blind(message) for message in messages]


def _blind(message: ModelMessage) -> ModelMessage:
    if not isinstance(message, ChatMessage) or not message.images:
        return message
    count = len(message.images)
    note = _UNSEEN.format("A picture" if count == 1 else f"{count} pictures")
    return replace(message, content=f"{message.content}\n\n{note}", images=())
