"""Whom a name means: a connection of the operator's, or one that its owner has saved."""

from db.ids import UserId
from db.records import ConnectionRecord
from db.stores.connections import ConnectionStore
from services.connections.clients import ClientPool
from services.connections.service import find_saved
from services.errors import ConnectionOff, UnknownProvider
from services.providers.base import Provider
from services.providers.registry import Providers

_MOST_TOLD = 100


class ConnectionDirectory:
    """Finds the model server that somebody names. The operator's are found without a look into the database.

    What is found stays usable for as long as a run lasts, whatever becomes of the row meanwhile.
    """

    def __init__(self, environment: Providers, store: ConnectionStore, clients: ClientPool) -> None:
        self._environment = environment
        self._store = store
        self._clients = clients

    async def get(self, owner_id: UserId, name: str | None = None) -> Provider:
        """The connection of that name or id, or the operator's default.

        Raises `UnknownProvider` with the names that the owner may use, `ConnectionOff`, `KeyUnreadable`, and
        `AddressNotAllowed` where the operator's rules have changed.
        """
        if name is None or name in self._environment.names:
            return self._environment.get(name)
        return self._clients.get(await self._usable(owner_id, name))

    async def check(self, owner_id: UserId, name: str) -> None:
        """Raises `UnknownProvider` and `ConnectionOff`."""
        if name not in self._environment.names:
            await self._usable(owner_id, name)

    async def knows(self, owner_id: UserId, name: str) -> bool:
        """Whether there is a connection of that name or id, switched on or off."""
        return name in self._environment.names or await find_saved(self._store, owner_id, name) is not None

    async def model_for(self, provider: Provider, wanted: str | None = None) -> str:
        """The model to ask; see `Providers.model_for`."""
        return await self._environment.model_for(provider, wanted)

    async def _usable(self, owner_id: UserId, name: str) -> ConnectionRecord:
        found = await find_saved(self._store, owner_id, name)
        if found is None:
            saved = await self._store.list(owner_id, before=None, limit=_MOST_TOLD)
            known = [*self._environment.names, *(one.name for one in saved)]
            raise UnknownProvider(f"There is no connection {name[:60]}. Known are: {', '.join(known)}.", known=known)
        if not found.is_active:
            self._clients.forget(owner_id, found.id)
            raise ConnectionOff(f"The connection {found.name} is switched off.", connection=found.name)
        return found
