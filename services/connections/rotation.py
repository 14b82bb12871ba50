"""Sealing all keys anew under the newest key of the ring, beside a service that runs."""

from dataclasses import dataclass, field

from db.ids import ConnectionId
from db.stores.connections import ConnectionStore
from services.connections.vault import KeyUnreadable, KeyVault

_BATCH = 100


@dataclass(slots=True)
class Rotated:
    """How many keys were sealed anew, and which connections have one that nothing in the ring opens."""

    resealed: int = 0
    unreadable: list[ConnectionId] = field(default_factory=list[ConnectionId])


class KeyRotation:
    """Goes through the keys of everybody that are sealed under an older key of the ring.

    Each is one small write, so it can be stopped at any moment and begun again. A key that its owner changes meanwhile
    is left as it is then: it is sealed under the newest already.
    """

    def __init__(self, store: ConnectionStore, vault: KeyVault) -> None:
        self._store = store
        self._vault = vault

    async def run(self) -> Rotated:
        """Seal them; when this returns, the older keys of the ring are needed for nothing but what is `unreadable`."""
        done = Rotated()
        after: ConnectionId | None = None
        while batch := await self._store.sealed_otherwise(self._vault.newest, after=after, limit=_BATCH):
            for record in batch:
                try:
                    key = self._vault.open(record)
                except KeyUnreadable:
                    done.unreadable.append(record.id)
                    continue
                sealed = self._vault.seal(key, record.id, record.owner_id)
                assert sealed.sealed is not None
                assert sealed.key_id is not None
                done.resealed += await self._store.reseal(record, sealed.sealed, sealed.key_id)
            after = batch[-1].id
        return done
