"""Keys of model servers, as they stand in the database: unreadable without the ring, useless in another row."""

import os
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from db.ids import ConnectionId, UserId
from db.records import ConnectionRecord
from services.accounts.secrets import KeyRing
from services.errors import ServerError

PURPOSE: Final = "provider keys"
"""What keys of the ring are derived for."""

_NONCE_BYTES = 12
_LAST: Final = 4
_LONG_ENOUGH: Final = 12
"""Characters of a key of which the last four may be shown: of a shorter one they would be too much."""


class KeyUnreadable(ServerError):
    """The key of this connection cannot be read any more: give it again."""

    code = "connection_key_unreadable"
    retryable = False


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A key as it is stored; all None for a connection that needs none."""

    sealed: bytes | None = field(default=None, repr=False)
    key_id: str | None = None
    last_four: str | None = None


class KeyVault:
    """Seals keys with AES-256-GCM (NIST SP 800-38D) and opens them again.

    What is sealed is bound to the row, its owner and the purpose: copied into another row it does not open.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = {key.id: AESGCM(key.material) for key in ring}
        self.newest = ring.current.id
        """The id of the key that seals."""

    def seal(self, key: str | None, connection_id: ConnectionId, owner_id: UserId) -> SealedKey:
        """`key` as it is to be stored in that row; nothing for no key."""
        if key is None:
            return SealedKey()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ring[self.newest].encrypt(nonce, key.encode(), _bound_to(connection_id, owner_id))
        return SealedKey(sealed, self.newest, key[-_LAST:] if len(key) >= _LONG_ENOUGH else None)

    def open(self, record: ConnectionRecord) -> str | None:
        """The key in that row, None if it has none.

        Raises `KeyUnreadable`: a key of the ring is missing, or somebody has changed the row or put it in the place
        of another one. `reason` says for whoever looks after the service which.
        """
        if record.sealed_key is None:
            return None
        cipher = self._ring.get(record.key_id or "")
        if cipher is None:
            raise KeyUnreadable(connection=record.name, reason="its key of the ring is missing", key_id=record.key_id)
        nonce, sealed = record.sealed_key[:_NONCE_BYTES], record.sealed_key[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _bound_to(record.id, record.owner_id)).decode()
        except (InvalidTag, ValueError) as error:
            raise KeyUnreadable(connection=record.name, reason="it was changed, or sealed for another row") from error


def _bound_to(connection_id: UUID, owner_id: UUID) -> bytes:
    """The associated data: all parts have a fixed length, so no two rows have the same."""
    return PURPOSE.encode() + connection_id.bytes + owner_id.bytes
