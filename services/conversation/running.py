"""What the model is given in a run: the session's context, fitted to its window, and what is said meanwhile."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from db.ids import MessageId
from db.stores.context import ContextStore, Stretch
from db.stores.steering import SteeringStore
from services.agent.runner import Given
from services.agent.types import ModelMessage, ToolCall, ToolResultMessage, Usage
from services.context.items import (
    Group,
    Item,
    decode,
    encode,
    groups_of,
    mended,
    overhead_of,
    said_in,
    texts_of,
    unanswered,
)
from services.context.room import Room
from services.context.summaries import summary_item
from services.context.tokens import MESSAGE_OVERHEAD, TokenCounter
from services.context.window import DoesNotFit, Window, fit
from services.ending import usage_counts
from services.errors import ContextTooLong, LeaseLost
from services.files.attachments import Attachments
from services.providers.text import clean_text
from services.runs.active import ActiveRun
from services.runs.events import ContextUsage, MessageTaken
from services.runs.retry import until_answered
from services.usage.quota import Quota

_SHRINK = 0.75
"""What is still given after a server has said that it was too much."""


class RunConversation:
    """The conversation of one run: what was said before it, and the reply as far as it has got."""

    def __init__(
        self,
        store: ContextStore,
        steering: SteeringStore,
        tokens: TokenCounter,
        attachments: Attachments,
        run: ActiveRun,
        room: Room,
        stretch: Stretch,
        learn: Callable[[int, int], Awaitable[None]],
        quota: Quota,
    ) -> None:
        self._store = store
        self._steering = steering
        self._tokens = tokens
        self._attachments = attachments
        self._run = run
        self._room = room
        self._learn = learn
        self._quota = quota
        self._is_whole = stretch.is_whole
        self._summary = summary_item(stretch.summary) if stretch.summary else None
        self._groups: Sequence[Group] = groups_of(stretch.messages)
        self._reply: list[Item] = []
        self._given: Window | None = None

    @property
    def leaves_out(self) -> bool:
        """Whether there are older messages than those that fit. Raises `ContextTooLong`."""
        return self.fitted().left_out > 0 or not self._is_whole

    @property
    def unanswered(self) -> tuple[ToolCall, ...]:
        """The calls of the reply that have no answer yet."""
        return unanswered(self._reply)

    async def window(self) -> Given:
        """What fits: the newest of what was said before, and all of the reply, with what the user has said meanwhile.

        Raises `ContextTooLong`, `QuotaExceeded`, and `LeaseLost`, and the run is lost, if it is another's by now.
        """
        await self._quota.check(self._run.record.owner_id, under_way=self._run.usage)
        await self._take_steered()
        self._given = self.fitted()
        self._run.ask(self._given.tokens)
        record = self._run.record
        messages = await self._attachments.tell(record.owner_id, record.session_id, self._given.items)
        return Given(messages, self._room.told(self._given.reserve))

    async def add(self, said: Sequence[ModelMessage]) -> None:
        """Store what was said in this run; raises `LeaseLost`, and the run is lost, if it is another's by now."""
        items = [await counted(self._tokens, _storable(message)) for message in said]
        message_id, position = self._run.draft.message_id, len(self._reply)
        assert message_id is not None, "nothing is said in a run before its reply has begun"
        stored = [encode(item) for item in items]
        usage = dict(usage_counts(self._run.usage))
        kept = await until_answered(lambda: self._store.add(self._run.claimed, message_id, position, stored, usage))
        if not kept:
            self._run.lose()
            raise LeaseLost
        self._take(items)

    async def shrink(self) -> bool:
        """Give a quarter less from now on; False if nothing is left to leave out."""
        room, given = self._room, self._given or self.fitted()
        self._room = replace(room, limit=int((given.tokens + given.reserve) * _SHRINK))
        try:
            return self.fitted().tokens < given.tokens
        except ContextTooLong:
            self._room = room
            return False

    async def measured(self, usage: Usage) -> None:
        """Take what the model's server has counted: the windows of later runs follow it."""
        self._run.count(usage)
        # Files cost the most that they could, so they would teach what is not so.
        if self._given is not None and not any(item.files for item in self._given.items):
            await self._learn(self._given.tokens, usage.input_tokens)

    async def resume(self, message_id: MessageId) -> None:
        """Take what is stored of this reply, which somebody else began."""
        self._take([decode(item) for item in await self._store.items(message_id)])
        told = {item.stands_for for item in self._reply}
        self._groups = [group for group in self._groups if group.message_id not in told]

    def fullness(self) -> ContextUsage:
        """How full the window is, and of what. Raises `ContextTooLong`."""
        room, window = self._room, self.fitted()
        summary = window.summary.tokens if window.summary else 0
        filled = {
            "system": room.prompt,
            "tools": room.tools,
            "summary": summary,
            "history": window.tokens - room.fixed - summary,
        }
        parts = {part: room.told(tokens) for part, tokens in filled.items()}
        return ContextUsage(
            sum(parts.values()),
            room.window or room.limit,
            room.told(room.threshold),
            parts | {"reserve": room.told(window.reserve)},
            round(room.factor, 3),
        )

    def fitted(self) -> Window:
        """What fits now. Raises `ContextTooLong`."""
        room = self._room
        try:
            return fit(
                room.fixed,
                self._groups,
                limit=room.limit,
                reserve=room.reserve,
                turn=self._run.record.request["turns"],
                summary=self._summary,
                reply=mended(self._reply),
            )
        except DoesNotFit as error:
            raise _too_long(error, room) from error

    async def _take_steered(self) -> None:
        run, reply_id = self._run, self._run.draft.message_id
        if reply_id is None:
            return
        position = len(self._reply)
        taken = await until_answered(
            lambda: self._steering.take(run.claimed, reply_id, position=position, overhead=MESSAGE_OVERHEAD)
        )
        if taken is None:
            run.lose()
            raise LeaseLost
        for steered in taken:
            run.emit(MessageTaken(steered.message_id))
            run.answers(steered.message_id)
            self._take([decode(item) for item in steered.items])

    def _take(self, items: Sequence[Item]) -> None:
        self._reply.extend(items)
        if self._reply:
            self._run.in_context = said_in(self._reply)


async def counted(tokens: TokenCounter, message: ModelMessage) -> Item:
    """The message with all that it costs."""
    counts = [await tokens.count(text) for text in texts_of(message) if text]
    return Item(message, overhead_of(message) + sum(counts))


def _storable(message: ModelMessage) -> ModelMessage:
    """What models say is clean already; tools say anything."""
    if isinstance(message, ToolResultMessage):
        return replace(message, content=clean_text(message.content))
    return message


def _too_long(error: DoesNotFit, room: Room) -> ContextTooLong:
    prompts = {"the system prompt": room.prompt, "the tools": room.tools, "the message": error.needed - room.fixed}
    largest = max(prompts, key=lambda name: prompts[name])
    return ContextTooLong(
        f"The message, the system prompt and the tools need {error.needed} tokens; the model takes {error.limit}."
        f" Shorten {largest}, or choose a model with a larger window.",
        needed=error.needed,
        limit=error.limit,
        system=room.prompt,
        tools=room.tools,
    )
