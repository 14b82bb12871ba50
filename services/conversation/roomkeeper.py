"""After a reply, while nobody waits: summarizes what is old before the context is full."""

import logging

from services.agent.types import Usage
from services.casting import CastingOffice
from services.context.compaction import KEPT
from services.context.room import Room
from services.conversation.compactor import Compactor, Place
from services.errors import ColloquyError
from services.runs.active import ActiveRun
from services.runs.afterwork import PostWork

_log = logging.getLogger(__name__)


class Roomkeeper:
    """Makes room for the turns to come: a side job.

    The next message does not wait for it: that is answered with what there is. Doing it again is doing it once, as what
    has been summarized is not over the threshold any more.
    """

    name = "summary"

    def __init__(self, casting: CastingOffice, compactor: Compactor, *, compact_at: float) -> None:
        self._casting = casting
        self._compactor = compactor
        self._compact_at = compact_at

    def wants(self, run: ActiveRun) -> bool:
        """Whether the context is over the threshold with the reply."""
        return run.is_crowded

    async def do(self, work: PostWork) -> Usage | None:
        """Make room if it is needed."""
        record = work.record
        if record.context is None or record.reply_message_id is None:
            return None
        room = Room.of(record.context, self._compact_at)
        try:
            place = Place(record.session_id, record.reply_message_id, await self._casting.cast(record), room)
            made = await self._compactor.after_a_reply(place, keep_tokens=room.kept(KEPT))
        except ColloquyError as error:
            _log.warning("no room was made in session %s: %s", record.session_id, error.message)
            return None
        return made and made.usage
