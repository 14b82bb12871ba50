"""How often somebody may try: attempts are counted in moving windows, in this process only."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from services.accounts.addresses import network_of
from services.errors import TooManyRequests

_MOST_KEYS: Final = 20_000
"""What is counted at once; beyond that the longest unused count is forgotten."""


class TooManyAttempts(TooManyRequests):
    """Too many attempts: wait before the next one."""

    code = "too_many_attempts"


class MovingWindow:
    """Counts attempts by key: of each key no more than `most` in any `seconds`."""

    def __init__(self, most: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until the key may be tried again; 0 if at once."""
        attempts = self._recent(key)
        if len(attempts) < self._most:
            return 0.0
        return attempts[0] + self._seconds - self._clock()

    def count(self, key: str) -> None:
        """Count one attempt."""
        attempts = self._recent(key)
        attempts.append(self._clock())
        self._attempts[key] = attempts
        self._attempts.move_to_end(key)
        if len(self._attempts) > _MOST_KEYS:
            self._attempts.popitem(last=False)

    def forget(self, key: str) -> None:
        """As if the key had never been tried."""
        self._attempts.pop(key, None)

    def _recent(self, key: str) -> deque[float]:
        attempts = self._attempts.get(key) or deque[float](maxlen=self._most)
        since = self._clock() - self._seconds
        while attempts and attempts[0] <= since:
            attempts.popleft()
        return attempts


@dataclass(frozen=True, slots=True)
class GuessSettings:
    """How many attempts there may be within `seconds`."""

    seconds: float
    per_account_and_address: int
    per_account: int
    per_address: int
    registrations_per_address: int


class GuessLimits:
    """Bounds the guessing of passwords, codes and tokens. Each method raises `TooManyAttempts`.

    Whoever fails too often for one account from one address has to wait there, and nobody else. The wider count for
    an account, over all addresses, spares those from which its owner has signed in before: nobody can keep them out
    by guessing from elsewhere.
    """

    def __init__(self, settings: GuessSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        def window(most: int) -> MovingWindow:
            return MovingWindow(most, settings.seconds, clock=clock)

        self._pairs = window(settings.per_account_and_address)
        self._accounts = window(settings.per_account)
        self._addresses = window(settings.per_address)
        self._registrations = window(settings.registrations_per_address)
        self._known: OrderedDict[str, None] = OrderedDict()

    def guess_password(self, account: str, address: str) -> None:
        """Count an attempt on an account before its password is looked at."""
        network = network_of(address)
        pair = f"{network} {account}"
        tried = [(self._addresses, network), (self._pairs, pair)]
        if pair not in self._known:
            tried.append((self._accounts, account))
        _try(tried)

    def password_was_right(self, account: str, address: str) -> None:
        """Take the attempt back, and remember that its owner comes from there."""
        pair = f"{network_of(address)} {account}"
        self._pairs.forget(pair)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)

    def register(self, address: str) -> None:
        """Count an attempt to register."""
        _try([(self._registrations, network_of(address))])

    def may_refresh(self, address: str) -> None:
        """Refuse an address that has come with too many tokens that were none."""
        _check([(self._addresses, network_of(address))])

    def token_was_wrong(self, address: str) -> None:
        """Count a token that is none of ours."""
        self._addresses.count(network_of(address))


def _try(tried: Sequence[tuple[MovingWindow, str]]) -> None:
    _check(tried)
    for window, key in tried:
        window.count(key)


def _check(tried: Sequence[tuple[MovingWindow, str]]) -> None:
    seconds = max(window.wait(key) for window, key in tried)
    if seconds > 0:
        raise TooManyAttempts(retry_after=max(1, round(seconds)))
