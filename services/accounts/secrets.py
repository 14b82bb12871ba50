"""The keys of this service: from the operator's SECRET_KEY, or from one that was made at the first start."""

import contextlib
import math
import os
import re
import secrets
import stat
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

SHORTEST_SECRET: Final = 32
"""Bytes of UTF-8."""

_FEWEST_BITS = 90
"""By how often each character stands in the secret; 32 random hexadecimal digits come to 110 and more."""
_PLACEHOLDER = re.compile(
    r"change[\W_]*(me|this|it)|replace[\W_]*(me|this)|place[\W_]*holder|example|pass[\W_]*word|secret|default|insecure"
    r"|(your|my|the|some|super|jwt|test|dev)[\W_]*key|1234567|qwerty|abcdefg|x{6}",
    re.IGNORECASE,
)


class SecretUnusable(Exception):
    """The secret of this service cannot be used. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """32 bytes for one purpose. The id is public: it names the secret that they come from."""

    id: str
    material: bytes = field(repr=False)


class KeyRing:
    """The keys of one purpose, newest first: the first one makes, all of them are accepted."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    @property
    def current(self) -> Key:
        """The key to sign and encrypt with."""
        return self._keys[0]

    def find(self, key_id: str) -> Key | None:
        """The key with that id."""
        return next((key for key in self._keys if key.id == key_id), None)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class SecretKeys:
    """Keys for each purpose, out of the secrets of the service, newest first.

    What is signed with the key of one purpose says nothing about the key of another.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets)

    def derive(self, purpose: str) -> KeyRing:
        """The keys for `purpose`, always the same for the same secrets."""
        return KeyRing([_key(secret, purpose) for secret in self._secrets])


def _key(secret: bytes, purpose: str) -> Key:
    key_id = _derived(secret, f"id of {purpose}", 9)
    return Key(urlsafe_b64encode(key_id).decode(), _derived(secret, f"key of {purpose}", 32))


def _derived(secret: bytes, info: str, length: int) -> bytes:
    # Here, because it takes 50 ms to import, which no command but `serve` should cost.
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), length, salt=None, info=f"colloquy: {info}".encode()).derive(secret)


def weakness_of(secret: str) -> str | None:
    """What makes the secret one that can be guessed; None if nothing does."""
    if len(secret.encode()) < SHORTEST_SECRET:
        return f"is shorter than {SHORTEST_SECRET} bytes"
    if _PLACEHOLDER.search(secret):
        return "looks like a placeholder that somebody published"
    if _bits(secret) < _FEWEST_BITS or _repeats(secret):
        return "is not random enough"
    return None


def _bits(text: str) -> float:
    return sum(-count * math.log2(count / len(text)) for count in Counter(text).values())


def _repeats(text: str) -> bool:
    """Whether it is one shorter text several times over."""
    return (text + text).find(text, 1) < len(text)


def kept_secret(path: Path) -> str:
    """The secret in that file, which nobody else may read; made now if there is none. Raises `SecretUnusable`."""
    if not path.exists():
        _make(path)
    with _open(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            raise SecretUnusable(
                f"{path} could be read by others, and whoever has it can sign in as anybody. Delete it to have another "
                f"made (all have to sign in again, and give keys of model servers again), or if nobody has seen it: "
                f"chmod 600 {path}"
            )
        secret = file.read(4096).strip()
    weakness = weakness_of(secret)
    if weakness is not None:
        raise SecretUnusable(f"The secret in {path} {weakness}. Delete the file to have another made.")
    return secret


def _open(path: Path) -> TextIO:
    try:
        return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="ascii", errors="replace")
    except OSError as error:
        raise SecretUnusable(f"{path} cannot be read: {error.strerror}.") from error


def _make(path: Path) -> None:
    # Whole or not at all: another process that starts at the same moment must not read half of it.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # then the other one was faster
            path.hardlink_to(draft)
    except OSError as error:
        raise SecretUnusable(f"{path} cannot be made ({error.strerror}); set SECRET_KEY.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
