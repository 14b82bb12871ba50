"""Makes room in a session's context: a model summarizes what is old, or else a mark says that it was left out.

Whatever goes wrong with a summary, room is made: a full context never keeps a session from going on. No database
connection is held while the model works, and cancelling closes its stream.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from db.ids import MessageId, SessionId, SummaryId, new_id
from db.records import SummaryKind
from db.stores.context import ContextStore, NewSummary, Stretch
from services.agent.agent import Agent
from services.agent.collected import Collected
from services.agent.runner import Runner, Spoken
from services.agent.types import ChatMessage, Usage
from services.casting import Casting
from services.context.compaction import (
    ASKING_TOKENS,
    INSTRUCTIONS,
    Unusable,
    cut,
    judged,
    question,
    summary_tokens,
    transcript,
)
from services.context.items import Group, groups_of
from services.context.room import Room
from services.context.summaries import mark, shown
from services.context.tokens import MESSAGE_OVERHEAD, TokenCounter
from services.ending import usage_counts
from services.errors import ColloquyError, ModelError, ProviderTimeout
from services.providers.base import Provider
from services.providers.registry import Providers
from services.runs.events import ContextCompacted, encode, timestamp
from services.runs.journal import Journal

_log = logging.getLogger(__name__)

_LOOKED_AT = 4
"""So many windows full of old messages are looked at; what is older still is left out."""
_SUMMARY_BYTES = 64 * 1024
_WORDS_PER_TOKEN = 0.6


class SummaryFailed(ModelError):
    """The model gave no summary that could be used."""

    code = "summary_failed"

    def __init__(self, message: str | None = None, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class SummarySettings:
    """Who summarizes, None for whoever answers, and how many seconds that may take."""

    connection: str | None
    model: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where room is to be made: the branch of a session that ends with `leaf`, for the model that answers there."""

    session_id: SessionId
    leaf: MessageId
    casting: Casting
    room: Room
    turn: int = 1


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was done: `before` and `after` are tokens of the whole window, `messages` were replaced."""

    kind: SummaryKind
    before: int
    after: int
    messages: int
    usage: Usage | None

    @property
    def event(self) -> ContextCompacted:
        """What users are told of it."""
        return ContextCompacted(self.before, self.after, self.messages)


class Compactor:
    """Replaces old messages in contexts."""

    def __init__(
        self,
        store: ContextStore,
        tokens: TokenCounter,
        providers: Providers,
        journal: Journal,
        settings: SummarySettings,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._providers = providers
        self._journal = journal
        self._settings = settings

    async def before_a_call(self, place: Place, *, keep_tokens: int) -> Compaction | None:
        """Replace all but the newest messages, which may have `keep_tokens`; None if there is nothing to replace.

        A mark takes the place of a summary that fails. Whoever asks tells users, and counts the usage.
        """
        old = await self._old(place, keep_tokens)
        return old and await self._replace(old, await self._made_or_marked(old), announce=False)

    async def after_a_reply(self, place: Place, *, keep_tokens: int) -> Compaction | None:
        """As before a call, but only if the threshold is passed; the session's readers are told."""
        old = await self._old(place, keep_tokens)
        if old is None or old.tokens <= place.room.threshold:
            return None
        return await self._replace(old, await self._made_or_marked(old), announce=True)

    async def by_hand(self, place: Place, *, keep_tokens: int) -> Compaction | None:
        """As after a reply, whatever the threshold, but a summary that fails leaves everything as it is.

        Raises `SummaryFailed` and what asking a model raises.
        """
        old = await self._old(place, keep_tokens)
        if old is None:
            return None
        made = await self._made(old)
        return await self._replace(old, made, announce=True, cost=made.usage)

    async def _old(self, place: Place, keep_tokens: int) -> "_Old | None":
        """What is to be replaced. What was only marked as left out is looked at again: now there may be a summary."""
        stretch = await self._store.newest(
            place.session_id,
            place.leaf,
            token_budget=_LOOKED_AT * place.room.limit,
            overhead=MESSAGE_OVERHEAD,
            through_marks=True,
        )
        groups = groups_of(stretch.messages)
        position = cut(groups, keep_tokens=keep_tokens, turn=place.turn)
        return _Old(place, stretch, groups[:position], groups[position:]) if position else None

    # --- asking a model --------------------------------------------------------------------------------------------

    async def _made_or_marked(self, old: "_Old") -> "_Made":
        try:
            return await self._made(old)
        except ColloquyError as error:
            _log.warning("no summary for session %s: %s", old.place.session_id, error.message)
            return old.marked(error.usage if isinstance(error, SummaryFailed) else None)

    async def _made(self, old: "_Old") -> "_Made":
        """A summary of what is old. Raises `SummaryFailed` and what asking a model raises."""
        provider, model = await self._summarizer(old.place.casting)
        if provider.kind == "demo":
            return old.marked(None)  # it makes no summaries
        most = summary_tokens(old.place.room.threshold)
        material = await self._material(old, await provider.context_window(model) or old.place.room.limit, most)
        agent = Agent(model, INSTRUCTIONS.format(words=int(most * _WORDS_PER_TOKEN)))
        answer = Collected(_SUMMARY_BYTES)
        try:
            async with asyncio.timeout(self._settings.seconds):
                result = await Runner(provider).run(agent, Spoken(ChatMessage("user", material)), answer)
        except TimeoutError as error:
            raise ProviderTimeout("The model took too long to summarize.") from error
        if result.reason != "stop":
            raise SummaryFailed(f"The model ended its summary with: {result.reason}.", result.usage)
        text = judged(answer.text, await self._tokens.count(answer.text), most)
        if isinstance(text, Unusable):
            raise SummaryFailed(f"The summary cannot be used: {text.why}.", result.usage)
        return _Made("summary", text, model, result.usage)

    async def _summarizer(self, casting: Casting) -> tuple[Provider, str]:
        settings = self._settings
        # A model without a connection is one of the operator's servers: a user's own has other ones.
        is_users_own = settings.connection is None and not self._providers.has_made(casting.provider)
        if is_users_own or (settings.connection is None and settings.model is None):
            return casting.provider, casting.model
        provider = self._providers.get(settings.connection) if settings.connection else casting.provider
        return provider, await self._providers.model_for(provider, settings.model)

    async def _material(self, old: "_Old", window: int, most: int) -> str:
        """As much as the model takes of what it is to summarize, the newest of it."""
        earlier = old.stretch.summary
        entries = transcript(old.replaced, earlier and earlier.text)
        head, entries = (entries[:1], entries[1:]) if earlier else ([], entries)
        room = window - ASKING_TOKENS - most * 5 // 4 - sum([await self._tokens.count(entry) for entry in head])
        start = len(entries)
        while start > 0 and (cost := 2 + await self._tokens.count(entries[start - 1])) <= room:
            start -= 1
            room -= cost
        if start == len(entries):
            raise SummaryFailed("The window of the model that summarizes is too small.")
        return question([*head, *entries[start:]], left_out=start > 0 or not old.stretch.is_whole)

    # --- storing it ------------------------------------------------------------------------------------------------

    async def _replace(
        self, old: "_Old", made: "_Made", *, announce: bool, cost: Usage | None = None
    ) -> Compaction | None:
        """Store it, with its cost if nobody else counts that; None if what was said was changed meanwhile."""
        place = old.place
        tokens = await self._tokens.count_message(shown(made.kind, made.text))
        before, after = place.room.told(old.tokens), place.room.told(old.after(tokens))
        compaction = Compaction(made.kind, before, after, len(old.replaced), made.usage)
        event = encode(compaction.event, None, timestamp()) if announce else None
        earlier = old.stretch.summary
        new = NewSummary(
            SummaryId(new_id()),
            place.session_id,
            MessageId(old.replaced[-1].message_id),
            made.kind,
            made.text,
            tokens,
            len(old.replaced) + (earlier.summarized_messages if earlier else 0),
            sum(group.tokens for group in old.replaced) + (earlier.token_count if earlier else 0),
            made.model,
            dict(usage_counts(cost)) if cost else None,
        )
        seq = await self._store.put_summary(new, version=old.stretch.version, event=event)
        if seq is not None and event is not None:
            self._journal.show(place.session_id, None, seq, [event])
        return None if seq is None else compaction


@dataclass(frozen=True, slots=True)
class _Made:
    """What is to stand for old messages."""

    kind: SummaryKind
    text: str
    model: str | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class _Old:
    """What is to be replaced, and what stays."""

    place: Place
    stretch: Stretch
    replaced: Sequence[Group]
    stays: Sequence[Group]

    @property
    def tokens(self) -> int:
        """What the window takes now."""
        earlier = self.stretch.summary.token_count if self.stretch.summary else 0
        return self.after(earlier) + sum(group.tokens for group in self.replaced)

    def after(self, summary_tokens: int) -> int:
        """What the window takes with a summary of so many tokens."""
        return self.place.room.fixed + summary_tokens + sum(group.tokens for group in self.stays)

    def marked(self, usage: Usage | None) -> _Made:
        """The mark that stands for what is replaced if there is no summary of it."""
        return _Made("marker", mark(len(self.replaced), self.stretch.summary), None, usage)
