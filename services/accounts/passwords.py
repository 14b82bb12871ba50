"""Passwords: what they may be, and how they are kept."""

import asyncio
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from pwdlib.hashers.argon2 import Argon2Hasher

from services.errors import InvalidRequest, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

SHORTEST: Final = 8
LONGEST: Final = 1024
"""Bytes of UTF-8, after normalization."""


class PasswordsBusy(Unavailable):
    """Too many people are signing in at this moment: try again in a second."""

    code = "busy"
    resend_safe = True


@dataclass(frozen=True, slots=True)
class PasswordCosts:
    """What it takes to try one password: Argon2id's memory, passes and lanes (RFC 9106)."""

    memory_kib: int
    passes: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password is the right one, and what to store in place of a hash that costs another price."""

    matches: bool
    better_hash: str | None = None


class Passwords:
    """Hashes and verifies passwords in threads of its own: each takes many megabytes and a good part of a second.

    `at_once` are worked on, `waiting` may wait for them; whoever comes then is told to come again (`PasswordsBusy`).
    """

    def __init__(self, costs: PasswordCosts, *, at_once: int, waiting: int) -> None:
        self._hasher = Argon2Hasher(costs.passes, costs.memory_kib, costs.lanes)
        self._nobodys = _nobodys_hash(costs)
        self._most = at_once + waiting
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="passwords")
        self._pending = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """On leaving, what waits is given up and the threads have ended."""
        try:
            yield
        finally:
            await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def hash(self, password: str, *, field: str = "password") -> str:
        """What to store of a new password, which came in `field`. Raises `InvalidRequest`, `PasswordsBusy`."""
        data = _checked(password, field)
        if len(data) < SHORTEST:
            raise InvalidRequest(f"A password has at least {SHORTEST} bytes.", field=field)
        return await self._work(self._hasher.hash, data)

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Whether `stored` was made of the password. None, for a user who does not exist, takes as long.

        Raises `InvalidRequest`, `PasswordsBusy`.
        """
        return await self._work(self._verify, _checked(password, "password"), stored)

    def _verify(self, password: bytes, stored: str | None) -> Verdict:
        matches = self._hasher.verify(password, stored or self._nobodys)
        if not matches or stored is None:
            return Verdict(False)
        return Verdict(True, self._hasher.hash(password) if self._hasher.check_needs_rehash(stored) else None)

    async def _work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._pending >= self._most:
            raise PasswordsBusy(retry_after=1)
        loop = asyncio.get_running_loop()
        self._pending += 1
        future = self._threads.submit(function, *args, **kwargs)
        # Not when its caller has left: the thread works on.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._pending -= 1


def _checked(password: str, field: str) -> bytes:
    """The bytes that are hashed: of the composed form (NFC, RFC 8265), because keyboards differ in how they say é."""
    try:
        data = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("A password must not contain lone surrogates.", field=field) from error
    if b"\0" in data:
        raise InvalidRequest("A password must not contain NUL characters.", field=field)
    if len(data) > LONGEST:
        raise InvalidRequest(f"A password has at most {LONGEST} bytes.", field=field)
    return data


def _nobodys_hash(costs: PasswordCosts) -> str:
    """Looks like a hash and costs as much, but no password is known that it would be made of."""
    salt, digest = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
    return f"$argon2id$v=19$m={costs.memory_kib},t={costs.passes},p={costs.lanes}${salt}${digest}"
