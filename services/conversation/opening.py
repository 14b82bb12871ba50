"""Opens what the model is given in runs: makes room in the session's context if it must, and fits it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from db.ids import UserId
from db.stores.context import ContextStore
from db.stores.steering import SteeringStore
from services.agent.types import ToolResultMessage, ToolSpec, total
from services.casting import Casting
from services.context.compaction import KEPT
from services.context.items import decode, encode, said_in, unanswered
from services.context.room import Room
from services.context.tokens import MESSAGE_OVERHEAD, TokenCounter
from services.context.tools import ToolCosts
from services.conversation.calibrations import Calibrations
from services.conversation.compactor import Compactor, Place
from services.conversation.running import RunConversation, counted
from services.files.attachments import Attachments
from services.runs.active import ActiveRun
from services.runs.retry import until_answered
from services.usage.quota import Quota


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Numbers of the operator: tokens, and the share of the room from which on older messages are summarized."""

    default_window: int
    reply_tokens: int
    compact_at: float


class Conversations:
    """Opens the conversations of runs."""

    def __init__(
        self,
        store: ContextStore,
        steering: SteeringStore,
        tokens: TokenCounter,
        compactor: Compactor,
        calibrations: Calibrations,
        limits: ContextLimits,
        attachments: Attachments,
        quota: Quota,
    ) -> None:
        self._store = store
        self._steering = steering
        self._tokens = tokens
        self._compactor = compactor
        self._calibrations = calibrations
        self._tool_costs = ToolCosts(tokens)
        self._limits = limits
        self._attachments = attachments
        self._quota = quota

    async def open(
        self, run: ActiveRun, casting: Casting, prompt: str, tools: Sequence[ToolSpec] = ()
    ) -> RunConversation:
        """The newest messages that fit the model's window beside prompt, tools and reply, with word of how full it is.

        If something had to be left out, it is summarized first. Raises `ContextTooLong`.
        """
        room = await self._room(run.record.owner_id, casting, prompt, tools)
        conversation = await self._fitted(run, casting, room)
        if conversation.leaves_out:
            record = run.record
            place = Place(record.session_id, record.user_message_id, casting, room, record.request["turns"])
            made = await self._compactor.before_a_call(place, keep_tokens=room.kept(KEPT))
            if made is not None:
                run.emit(made.event)
                conversation = await self._fitted(run, casting, room)
                run.spent = total(run.spent, made.usage)
        if run.draft.message_id is not None:
            await conversation.resume(run.draft.message_id)
            run.context = conversation.fullness()
        else:
            run.show_context(conversation.fullness())
        return conversation

    async def resume(self, run: ActiveRun) -> None:
        """Learn how much of a reply that somebody else began stands in the context already."""
        if run.draft.message_id is not None:
            items = await self._store.items(run.draft.message_id)
            run.in_context = said_in([decode(item) for item in items]) if items else None

    async def answer(self, run: ActiveRun, told: Mapping[str, str], *, otherwise: str) -> None:
        """Give every call of a run that has none an answer: what is `told` of it, or the same for all others.

        Nothing is stored if the run belongs to somebody else by now.
        """
        message_id = run.draft.message_id
        if message_id is None:
            return
        items = [decode(item) for item in await until_answered(lambda: self._store.items(message_id))]
        answers = [
            await counted(self._tokens, ToolResultMessage(call.id, call.name, told.get(call.id, otherwise)))
            for call in unanswered(items)
        ]
        run.in_context = said_in(items) if items else None
        if answers:
            stored = [encode(item) for item in answers]
            await until_answered(lambda: self._store.add(run.claimed, message_id, len(items), stored))

    async def _room(self, owner_id: UserId, casting: Casting, prompt: str, tools: Sequence[ToolSpec]) -> Room:
        limits = self._limits
        return Room.calibrated(
            await casting.provider.context_window(casting.model, casting.controls) or limits.default_window,
            casting.controls.get("max_tokens") or limits.reply_tokens,
            prompt=await self._tokens.count_message(prompt) if prompt else 0,
            tools=await self._tool_costs.of(tools),
            compact_at=limits.compact_at,
            factor=await self._calibrations.factor(owner_id, casting),
        )

    async def _fitted(self, run: ActiveRun, casting: Casting, room: Room) -> RunConversation:
        stretch = await self._store.newest(
            run.record.session_id,
            run.record.user_message_id,
            token_budget=max(0, room.limit - room.fixed),
            overhead=MESSAGE_OVERHEAD,
        )
        learn = partial(self._calibrations.learn, run.record.owner_id, casting)
        return RunConversation(
            self._store, self._steering, self._tokens, self._attachments, run, room, stretch, learn, self._quota
        )
