"""Saved connections where nothing of the service runs."""

import os

from db.pool import Database
from db.records import ConnectionRecord
from db.stores.connections import ConnectionStore
from services.accounts.secrets import Key, KeyRing
from services.connections.addresses import LOOPBACK, AddressRules, Gatekeeper
from services.connections.clients import ClientPool
from services.connections.directory import ConnectionDirectory
from services.connections.profile import Profile, make_provider
from services.connections.vault import KeyVault
from services.providers.base import Provider, ProviderTimeouts
from services.providers.registry import Providers


def directory_of(environment: Providers, pool: Database) -> ConnectionDirectory:
    """A directory with those connections of the operator's, and what is saved in that database."""
    vault, gatekeeper = KeyVault(KeyRing([Key("test", os.urandom(32))])), Gatekeeper(AddressRules(LOOPBACK))

    def client(record: ConnectionRecord) -> Provider:
        return make_provider(record.name, Profile.of(record), vault.open(record), gatekeeper, ProviderTimeouts())

    return ConnectionDirectory(environment, ConnectionStore(pool), ClientPool(client))
