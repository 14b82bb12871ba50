"""How a run ends: what is said of it, and in which order."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.errors import DatabaseError
from services.agent.types import Usage
from services.errors import ColloquyError, RunTimedOut, ServerError, Unavailable
from services.runs.active import ActiveRun
from services.runs.events import (
    NO_USAGE,
    AssistantEnd,
    Event,
    Failed,
    FinishReason,
    Interrupted,
    PostResponseComplete,
    RunEvent,
    StageUpdate,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work of a run ended."""

    finish_reason: FinishReason
    usage: Usage | None = None
    error: ColloquyError | None = None

    @property
    def is_good(self) -> bool:
        """Whether the reply came to an end of its own: only then is there anything to do after it."""
        return self.finish_reason not in ("interrupted", "error")


def in_our_words(error: Exception) -> ColloquyError:
    """The error that a user is told of; one that nobody foresaw is logged."""
    match error:
        case ColloquyError():
            return error
        case TimeoutError():
            return RunTimedOut()
        case DatabaseError():
            return Unavailable()
        case ExceptionGroup():
            # What was done side by side failed together; one fault is enough to be told.
            return in_our_words(error.exceptions[0])
        case _:
            _log.exception("a run failed", exc_info=error)
            return ServerError()


def last_events(
    run: ActiveRun, outcome: Outcome, closed: Sequence[RunEvent] = (), *, post_response: bool
) -> list[Event]:
    """What ends a run: open tool calls are `closed`, the reason is given, then exactly one `assistant_end`.

    Unless there is work left to do after a good reply, that work is told to be over, too.
    """
    phase = run.phase
    for event in closed:
        run.draft.add(event)
    events: list[Event] = [*closed]
    if outcome.finish_reason == "interrupted":
        events.append(Interrupted(phase, run.interrupt_ms(), run.interrupt.by if run.interrupt else "shutdown"))
    if outcome.error is not None:
        events.append(Failed.of(outcome.error))
    draft = run.draft
    events.append(
        AssistantEnd(
            draft.message_id, outcome.finish_reason, usage_counts(outcome.usage), run.timings(), draft.text_sha256
        )
    )
    if outcome.is_good and not post_response:
        events.extend(_nothing_after())
    return events


def _nothing_after() -> list[Event]:
    """Stages 4 and 5 where nobody asks for them: they are over as soon as they begin."""
    events: list[Event] = []
    for stage in (4, 5):
        events.extend((StageUpdate.began(stage), StageUpdate.ended(stage)))
    return [*events, PostResponseComplete()]


def usage_counts(usage: Usage | None) -> Mapping[str, int | None]:
    """Usage as events and records tell it."""
    if usage is None:
        return NO_USAGE
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "thinking_tokens": usage.thinking_tokens,
    }
