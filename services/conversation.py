"""What the model is given in a run: the session's context, fitted to its window, and what is said meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from db.stores.messages import MessageStore
from services.agent.runner import Given
from services.agent.types import ChatMessage, ModelMessage
from services.casting import Casting
from services.context.tokens import MESSAGE_OVERHEAD, TokenCounter
from services.context.window import ContextItem, DoesNotFit, Window, as_model_messages, fit
from services.errors import ContextTooLong
from services.runs.active import ActiveRun
from services.runs.events import ContextUsage


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Numbers of the operator, in tokens."""

    default_window: int
    reply_tokens: int


class Conversations:
    """Opens the conversations of runs."""

    def __init__(self, messages: MessageStore, tokens: TokenCounter, limits: ContextLimits) -> None:
        self._messages = messages
        self._tokens = tokens
        self._limits = limits

    async def open(self, run: ActiveRun, casting: Casting, prompt: str) -> "RunConversation":
        """The newest messages that fit the model's window beside the prompt and the reply, with word of how full it is.

        Raises `ContextTooLong`.
        """
        limit = await casting.provider.context_window(casting.model, casting.controls) or self._limits.default_window
        reserve = casting.controls.get("max_tokens") or self._limits.reply_tokens
        prompt_tokens = await self._tokens.count_message(prompt) if prompt else 0
        turns = await self._messages.newest_turns(
            run.record.session_id,
            run.record.user_message_id,
            token_budget=max(0, limit - prompt_tokens),
            overhead=MESSAGE_OVERHEAD,
        )
        items = [
            ContextItem(
                turn.role,
                turn.content,
                turn.token_count + MESSAGE_OVERHEAD,
                turn.id,
                interrupted=turn.finish_reason in ("interrupted", "error"),
            )
            for turn in turns
            if turn.content
        ]
        try:
            window = fit(prompt_tokens, items, limit=limit, reserve=reserve, turn=run.record.request["turns"])
        except DoesNotFit as error:
            raise ContextTooLong(
                f"The message and the system prompt need {error.needed} tokens; the model takes {error.limit}.",
                needed=error.needed,
                limit=error.limit,
            ) from error
        parts = {"system": prompt_tokens, "history": window.tokens - prompt_tokens, "reserve": window.reserve}
        run.emit(ContextUsage(window.tokens, limit, limit - window.reserve, parts))
        return RunConversation(window)


class RunConversation:
    """The conversation of one run."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._said: list[ModelMessage] = []

    async def window(self) -> Given:
        """The window, then what was said since it was opened."""
        history = [ChatMessage(role, content) for role, content in as_model_messages(self._window)]
        return Given((*history, *self._said), self._window.reserve)

    async def add(self, said: Sequence[ModelMessage]) -> None:
        """Take what was said in this run."""
        self._said.extend(said)
