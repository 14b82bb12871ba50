"""The contexts of sessions, as people look at them and have room made in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from db.ids import MessageId, SessionId, UserId
from db.records import ContextSummaryRecord, SessionRecord
from db.stores.context import ContextStore, Stretch
from db.stores.runs import RunStore
from db.stores.sessions import SessionStore
from services.casting import Casting, CastingOffice
from services.context.compaction import KEPT_BY_HAND
from services.context.items import Group, groups_of
from services.context.room import Room
from services.context.summaries import summary_item
from services.context.tokens import MESSAGE_OVERHEAD
from services.context.window import DoesNotFit, Window, fit
from services.conversation.calibrations import Calibrations
from services.conversation.compactor import Compaction, Compactor, Place
from services.conversation.opening import ContextLimits
from services.errors import Conflict, SessionBusy, no_session


@dataclass(frozen=True, slots=True)
class ContextView:
    """What the model would be told next before a new message. Tokens are estimates.

    `groups` are the messages after the summary, of which the newest `in_window` fit. `goes_on` says that there are
    still older ones, which no summary tells of.
    """

    provider: str
    model: str
    room: Room
    tokens: int
    summary: ContextSummaryRecord | None
    groups: Sequence[Group]
    in_window: int
    goes_on: bool


class ContextService:
    """Shows contexts, and makes room in them by hand."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        runs: RunStore,
        store: ContextStore,
        casting: CastingOffice,
        compactor: Compactor,
        calibrations: Calibrations,
        limits: ContextLimits,
    ) -> None:
        self._sessions = sessions
        self._runs = runs
        self._store = store
        self._casting = casting
        self._compactor = compactor
        self._calibrations = calibrations
        self._limits = limits
        self._being_summarized: set[SessionId] = set()

    async def describe(self, owner_id: UserId, session_id: SessionId) -> ContextView:
        """What the model would be told next. The prompt is that of the newest reply. Raises `NotFound`."""
        session = await self._session(owner_id, session_id)
        casting, room = await self._room(session)
        stretch = await self._stretch(session, room)
        groups = groups_of(stretch.messages)
        window = _window(groups, stretch, room)
        return ContextView(
            casting.provider.name,
            casting.model,
            room,
            window.tokens if window else room.fixed,
            stretch.summary,
            groups,
            len(window.groups) if window else 0,
            not stretch.is_whole,
        )

    async def summarize(self, owner_id: UserId, session_id: SessionId) -> Compaction:
        """Put a summary in the place of all but the newest messages.

        Raises `NotFound`, `SessionBusy` while a reply or another summary is in the making, `Conflict` if there is
        nothing to summarize, `SummaryFailed`, and what asking a model raises: then nothing has changed.
        """
        session = await self._session(owner_id, session_id)
        if session.active_run_id is not None:
            raise SessionBusy(active_run=str(session.active_run_id))
        if session_id in self._being_summarized:
            raise SessionBusy("The session is being summarized already.")
        self._being_summarized.add(session_id)
        try:
            casting, room = await self._room(session)
            place = Place(session_id, session.active_leaf_id or MessageId(session_id), casting, room)
            made = await self._compactor.by_hand(place, keep_tokens=room.kept(KEPT_BY_HAND))
        finally:
            self._being_summarized.discard(session_id)
        if made is None:
            raise Conflict("There is nothing to summarize: the newest exchange stays as it is.")
        return made

    async def _session(self, owner_id: UserId, session_id: SessionId) -> SessionRecord:
        session = await self._sessions.get(session_id, owner_id)
        if session is None:
            raise no_session()
        return session

    async def _room(self, session: SessionRecord) -> tuple[Casting, Room]:
        """Who would answer, and what there is room for: as in the newest run, or what the model's server tells."""
        casting, _ = await self._casting.rehearse(session.owner_id, None, session.id)
        casting = replace(casting, controls=session.controls)
        newest = await self._runs.newest_with_context(session.id, session.owner_id)
        if newest is not None and newest.context is not None:
            return casting, Room.of(newest.context, self._limits.compact_at)
        limit = await casting.provider.context_window(casting.model, casting.controls) or self._limits.default_window
        factor = await self._calibrations.factor(session.owner_id, casting)
        limits = self._limits
        return casting, Room.calibrated(
            limit, limits.reply_tokens, prompt=0, tools=0, compact_at=limits.compact_at, factor=factor
        )

    async def _stretch(self, session: SessionRecord, room: Room) -> Stretch:
        return await self._store.newest(
            session.id,
            session.active_leaf_id or MessageId(session.id),
            token_budget=max(0, room.limit - room.fixed),
            overhead=MESSAGE_OVERHEAD,
        )


def _window(groups: Sequence[Group], stretch: Stretch, room: Room) -> Window | None:
    """The window before a new message; None if not even the newest one fits."""
    summary = summary_item(stretch.summary) if stretch.summary else None
    try:
        return fit(room.fixed, groups, limit=room.limit, reserve=room.reserve, turn=0, summary=summary)
    except DoesNotFit:
        return None
