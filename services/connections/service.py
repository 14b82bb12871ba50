"""Saved connections: made, listed, changed and deleted by their owner, beside those that the operator has set up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from db.errors import DuplicateName
from db.ids import ConnectionId, UserId, new_id
from db.records import ConnectionRecord
from db.stores.connections import ConnectionStore, TooManyConnections
from services.audit import AuditLog
from services.connections.addresses import AddressRules
from services.connections.profile import Profile
from services.connections.vault import KeyVault
from services.errors import Conflict, InvalidRequest, NotFound, StaleVersion
from services.providers.registry import Providers

ENVIRONMENT_NAMES: Final = ("openai", "azure", "ollama", "demo")
"""What the operator's connections are called; no saved one may be, whether or not these are set up."""

_FORMER_NAMES = 10
_ATTEMPTS = 3
_PROFILE = tuple(field.name for field in fields(Profile))
_LIKE_AN_ID = re.compile(r"(\{|urn:uuid:)?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EnvironmentConnection:
    """A connection of the operator's: everybody may use it, and nobody may change it here. Named after its kind."""

    name: str
    default_model: str | None
    is_default: bool


Connection = ConnectionRecord | EnvironmentConnection


class ConnectionService:
    """Keeps the connections of an owner. `reference` is always a name or an id."""

    def __init__(
        self,
        store: ConnectionStore,
        environment: Providers,
        vault: KeyVault,
        rules: AddressRules,
        audit: AuditLog,
        *,
        most: int,
    ) -> None:
        """`most`: connections of one owner."""
        self._store = store
        self._environment = environment
        self._vault = vault
        self._rules = rules
        self._audit = audit
        self._most = most

    async def create(self, owner_id: UserId, given: Mapping[str, Any]) -> ConnectionRecord:
        """Save a connection made of the record's own fields and `api_key`; `name` and `kind` at least.

        Raises `Conflict` if the name is taken or there are too many, `InvalidRequest`, `AddressNotAllowed`.
        """
        checked = dict(given)
        key = checked.pop("api_key", None)
        new = self._checked(replace(_blank(ConnectionId(new_id()), owner_id), **checked))
        try:
            made = await self._store.create(self._sealed(new, key), most=self._most)
        except DuplicateName as taken:
            raise _name_is_taken() from taken
        except TooManyConnections as full:
            raise Conflict(f"You have saved {self._most} connections already: that is all that one may.") from full
        await self._audit.note(owner_id, "connection.create", made.id, kind=made.kind, has_key=key is not None)
        return made

    async def get(self, owner_id: UserId, reference: str) -> Connection:
        """One connection. Raises `NotFound`."""
        if reference in self._environment.names:
            return self._of_environment(reference)
        return await self._saved(owner_id, reference)

    async def list(self, owner_id: UserId, *, before: UUID | None, limit: int) -> tuple[list[Connection], UUID | None]:
        """Up to `limit` connections: the saved ones, newest first, then the operator's; and where the next page begins.

        Pages count the operator's as rows with ids before all that were ever given out.
        """
        names = self._environment.names
        places = {UUID(int=len(names) - position): name for position, name in enumerate(names)}
        saved = await self._store.list(owner_id, before=before, limit=limit + 1)
        found: list[tuple[UUID, Connection]] = [(one.id, one) for one in saved]
        found += [
            (place, self._of_environment(name)) for place, name in places.items() if before is None or place < before
        ]
        following = found[limit - 1][0] if len(found) > limit else None
        return [one for _, one in found[:limit]], following

    async def saved(self, owner_id: UserId) -> "list[ConnectionRecord]":
        """All that the owner has saved, newest first."""
        return await self._store.list(owner_id, before=None, limit=self._most)

    async def update(
        self, owner_id: UserId, reference: str, changes: Mapping[str, Any], *, version: int | None
    ) -> ConnectionRecord:
        """Change the named fields. Raises what `create` raises, `NotFound`, and `StaleVersion` if `version` is old.

        A key stays with its server: where the address changes, it has to be given again. Otherwise whoever may
        change a connection could have its key sent to themselves.
        """
        self._refuse_environment(reference)
        for _ in range(_ATTEMPTS):
            current = await self._saved(owner_id, reference)
            if version is not None and version != current.version:
                raise StaleVersion(version=current.version)
            try:
                stored = await self._store.replace(self._changed(current, changes))
            except DuplicateName as taken:
                raise _name_is_taken() from taken
            if stored is not None:
                await self._audit.note(owner_id, "connection.change", stored.id, fields=", ".join(sorted(changes)))
                return stored
        raise Conflict("Somebody else changes this connection at the same time: try again.")

    async def delete(self, owner_id: UserId, reference: str, *, version: int | None) -> None:
        """Delete a connection with its key. Raises `NotFound`, `StaleVersion`.

        Sessions and personas that name it keep the name: what they ask fails until there is a connection of that
        name again. Nothing is sent to another server in its place.
        """
        self._refuse_environment(reference)
        current = await self._saved(owner_id, reference)
        if not await self._store.delete(current.id, owner_id, version=version):
            current = await self._saved(owner_id, reference)
            raise StaleVersion(version=current.version)
        await self._audit.note(owner_id, "connection.delete", current.id)

    def _changed(self, current: ConnectionRecord, changes: Mapping[str, Any]) -> ConnectionRecord:
        given = dict(changes)
        has_key, key = "api_key" in given, given.pop("api_key", None)
        changed = self._checked(replace(current, **given))
        if changed.name != current.name:
            former = [name for name in (current.name, *current.former_names) if name != changed.name]
            changed = replace(changed, former_names=former[:_FORMER_NAMES])
        if has_key:
            return self._sealed(changed, key)
        if current.sealed_key is not None and not self._is_same_server(current, changed):
            raise InvalidRequest("The address has changed: give the key for it, or null for none.", field="api_key")
        return changed

    def _is_same_server(self, one: ConnectionRecord, other: ConnectionRecord) -> bool:
        if one.base_url == other.base_url and one.kind == other.kind:
            return True
        # Of the old address only where it leads matters: it may not be allowed any more.
        before, after = (self._rules.place(Profile.of(each).url) for each in (one, other))
        return one.kind == other.kind and before == after

    def _checked(self, record: ConnectionRecord) -> ConnectionRecord:
        """`record` as it can be stored. Raises `InvalidRequest`, `AddressNotAllowed`."""
        if record.name.casefold() in ENVIRONMENT_NAMES:
            raise InvalidRequest(f"{record.name} is what a connection of the service itself is called.", field="name")
        if _LIKE_AN_ID.fullmatch(record.name):
            raise InvalidRequest("A name must not look like an id.", field="name")
        profile = Profile.of(record).checked(self._rules)
        return replace(record, **{name: getattr(profile, name) for name in _PROFILE})

    def _sealed(self, record: ConnectionRecord, key: str | None) -> ConnectionRecord:
        sealed = self._vault.seal(key, record.id, record.owner_id)
        return replace(record, sealed_key=sealed.sealed, key_id=sealed.key_id, last_four=sealed.last_four)

    async def _saved(self, owner_id: UserId, reference: str) -> ConnectionRecord:
        found = await find_saved(self._store, owner_id, reference)
        if found is None:
            raise NotFound("There is no connection of that name or id.")
        return found

    def _of_environment(self, name: str) -> EnvironmentConnection:
        provider = self._environment.get(name)
        return EnvironmentConnection(name, provider.default_model, name == self._environment.default)

    def _refuse_environment(self, reference: str) -> None:
        if reference in self._environment.names:
            raise Conflict(f"{reference} belongs to the service: it is changed where the service is set up.")


async def find_saved(store: ConnectionStore, owner_id: UserId, reference: str) -> ConnectionRecord | None:
    """The owner's saved connection of that name or id."""
    if _LIKE_AN_ID.fullmatch(reference):
        return await store.get(ConnectionId(UUID(reference)), owner_id)
    if "\0" in reference or not reference.isprintable():
        return None
    return await store.named(reference, owner_id)


def _blank(connection_id: ConnectionId, owner_id: UserId) -> ConnectionRecord:
    now = datetime.now(UTC)
    return ConnectionRecord(
        id=connection_id,
        owner_id=owner_id,
        name="",
        former_names=[],
        kind="openai",
        base_url=None,
        api_version=None,
        deployment=None,
        default_model=None,
        num_ctx=None,
        api="chat_completions",
        is_active=True,
        sealed_key=None,
        key_id=None,
        last_four=None,
        version=1,
        created_at=now,
        updated_at=now,
    )


def _name_is_taken() -> Conflict:
    return Conflict("A connection of that name exists already.", field="name")
