"""A persona and its modules that show the idea without a key and without a network. Owners may change all of it."""

from collections.abc import Mapping
from typing import Any

_CLOCK = """\
ctx.set_output("now", ctx.get_current_time("%A, %d %B %Y, %H:%M %Z"))
"""

_ACQUAINTANCE = """\
replies = ctx.get_variable("replies", 0) + 1
ctx.set_variable("replies", replies)

# Whoever says "my name is Ada" or "call me Ada" is called Ada from then on.
name = ctx.get_variable("name", "")
words = [word.strip(".,;:!?()") for word in ctx.get_user_message().split()[:200]]
lower = [word.lower() for word in words]
for cue in [["my", "name", "is"], ["call", "me"]]:
    for start in range(len(words) - len(cue)):
        end = start + len(cue)
        heard = words[end][:40]
        if lower[start:end] == cue and heard[:1].isupper() and heard != name:
            name = heard
            ctx.set_variable("name", name)
            ctx.store_memory(f"The user's name is {name}.")

ctx.set_output("replies", f"Replies that you have given in this conversation: {replies}.")
if name:
    ctx.set_output("name", f"The user's name is {name}.")
"""

_GIST = """\
replies = ctx.get_variable("replies", 0) + 1
ctx.set_variable("replies", replies)

# A model is asked after every third reply; in between, what it said last still counts.
gist = ctx.get_variable("gist", "")
if replies % 3 == 0:
    try:
        gist = ctx.generate("Say in one sentence what this conversation is about.", ctx.get_recent_messages(12))
        ctx.set_variable("gist", gist)
    except RuntimeError as error:
        ctx.log(f"no gist: {error}")  # no model is connected, or it did not answer
if gist:
    ctx.set_output("gist", f"What the conversation has been about: {gist}")
"""

MODULES: tuple[Mapping[str, Any], ...] = (
    {
        "name": "clock",
        "description": "Tells the time. A script sets an output, and the text shows it.",
        "type": "advanced",
        "script": _CLOCK,
        "content": "It is ${now}.",
    },
    {
        "name": "style",
        "description": "How to speak. A simple module: its text is all there is.",
        "type": "simple",
        "content": "Answer in a few plain sentences, without headings and lists unless you are asked for them. "
        "If you do not know something, say so.",
    },
    {
        "name": "first_aid",
        "description": "Speaks only when something seems to be broken, because of its trigger.",
        "type": "simple",
        "content": "Something does not work for the user. Find out what was expected and what happened instead, and "
        "suggest one step at a time.",
        "trigger_pattern": "error|bug|broken|crashes|does not work|doesn't work",
    },
    {
        "name": "acquaintance",
        "description": "Runs after each reply: counts them, remembers the user's name, and says so in the next turn.",
        "type": "advanced",
        "script": _ACQUAINTANCE,
        "content": "",
        "execution_context": "POST_RESPONSE",
    },
    {
        "name": "gist",
        "description": "Asks a model what the conversation is about. Silent as long as no model is connected.",
        "type": "advanced",
        "script": _GIST,
        "content": "",
        "execution_context": "POST_RESPONSE",
    },
    {
        "name": "haiku",
        "description": "Waits to be named: write @haiku somewhere in a message.",
        "type": "simple",
        "content": "Give this answer as a haiku: three lines of five, seven and five syllables.",
        "execution_context": "ON_DEMAND",
    },
)
"""Fields of modules, as `ModuleService.create` takes them."""

PERSONA: Mapping[str, Any] = {
    "name": "Robin",
    "description": "Shows what prompts made of modules can do. Change or delete Robin as you like.",
    "template": "You are Robin: curious, warm and plain-spoken. @clock\n\n@style",
    "tools": {"servers": {"builtin": {}}},
}
"""Fields of the persona."""

ATTACHED = ("first_aid", "acquaintance", "gist", "haiku")
"""Modules that Robin has beside those that the template names."""
