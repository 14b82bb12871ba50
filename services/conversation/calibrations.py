"""Remembers how many tokens each model's server counts where we count one."""

import logging
from collections import OrderedDict

from db.errors import DatabaseError
from db.ids import UserId
from db.stores.calibrations import CalibrationStore
from services.casting import Casting
from services.context.calibration import learned

_log = logging.getLogger(__name__)

_WORTH_STORING = 0.02
_REMEMBERED = 1_000

_Key = tuple[UserId, str, str]


class Calibrations:
    """The factors, learned from what servers report; read from the database once, and written when they change."""

    def __init__(self, store: CalibrationStore) -> None:
        self._store = store
        self._known: OrderedDict[_Key, float] = OrderedDict()
        self._stored: dict[_Key, float] = {}

    async def factor(self, owner_id: UserId, casting: Casting) -> float:
        """How many tokens the server of this model counts where we count one; 1 until it has told."""
        key = _key(owner_id, casting)
        if key not in self._known:
            stored = await self._store.get(*key)
            self._keep(key, stored or 1.0)
            self._stored[key] = stored or 1.0
        return self._known[key]

    async def learn(self, owner_id: UserId, casting: Casting, counted: int, reported: int) -> None:
        """Take what a server has reported. That it cannot be stored just now is nobody's concern."""
        key = _key(owner_id, casting)
        factor = learned(await self.factor(owner_id, casting), counted, reported)
        self._keep(key, factor)
        if abs(factor - self._stored[key]) < _WORTH_STORING:
            return
        try:
            await self._store.put(*key, factor)
        except DatabaseError:
            _log.debug("a calibration was not stored", exc_info=True)
        else:
            self._stored[key] = factor

    def _keep(self, key: _Key, factor: float) -> None:
        self._known[key] = factor
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            forgotten, _ = self._known.popitem(last=False)
            self._stored.pop(forgotten, None)


def _key(owner_id: UserId, casting: Casting) -> _Key:
    return owner_id, casting.provider.name, casting.model
