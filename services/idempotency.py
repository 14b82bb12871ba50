"""Requests with an Idempotency-Key: sent twice, done once.

A key is taken before the work begins, and what was answered is kept after it. What came to nothing is forgotten, so
that it can be tried again. Between the work and the keeping of its answer the process may die: whoever asks again is
told that nobody knows, rather than that it was done, or done again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from db.errors import DatabaseError
from db.ids import ReplicaId, UserId, new_id
from db.stores.idempotency import IdempotencyStore, KnownRequest, Reserved
from services.errors import Conflict, InvalidRequest, TooManyRequests
from services.runs.retry import until_answered

_log = logging.getLogger(__name__)

KEPT_SECONDS = 86_400.0
_PATIENCE = 600.0
"""Longer than any of these requests takes."""
_KEYS_PER_USER = 10_000
_LARGEST_BODY = 1_048_576
_SWEEP_SECONDS = 600.0
_SWEPT_AT_ONCE = 1_000
_ATTEMPTS = 4
_LOOKS = 3


class KeyReused(InvalidRequest):
    """That Idempotency-Key was given with another request: take a new one for each thing that is to be done."""

    code = "idempotency_key_reused"


class InProgress(Conflict):
    """The request with that Idempotency-Key is still being carried out."""

    code = "idempotency_in_progress"
    retryable = True


class OutcomeUnknown(Conflict):
    """The request with that Idempotency-Key broke off, perhaps after it was carried out: look before you try anew."""

    code = "idempotency_outcome_unknown"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that has its key for itself now."""

    id: UUID
    owner_id: UserId
    key: str


class Idempotency:
    """Takes keys, and keeps answers. `running` owns the task that throws old ones away."""

    def __init__(self, store: IdempotencyStore, replica_id: ReplicaId) -> None:
        self._store = store
        self._replica_id = replica_id

    async def begin(self, owner_id: UserId, key: str, fingerprint: bytes) -> Attempt | KeptAnswer:
        """Take the key for a request that has that fingerprint, or what the request was answered before.

        Raises `KeyReused`, `InProgress`, `OutcomeUnknown`, and `TooManyRequests` if the user has too many keys.
        """
        attempt = Attempt(new_id(), owner_id, key)
        for _ in range(_LOOKS):
            match await self._reserve(attempt, fingerprint):
                case "reserved":
                    return attempt
                case "full":
                    raise TooManyRequests("Too many Idempotency-Keys in one day.", limit=_KEYS_PER_USER, retry_after=60)
                case "known":
                    known = await self._store.find(owner_id, key, patience=_PATIENCE)
                    if known is not None:
                        return _answer(known, fingerprint)
        raise InProgress(retry_after=1)  # others take it and give it back all the time

    async def complete(self, attempt: Attempt, answer: KeptAnswer) -> None:
        """Keep what the attempt was answered; if that cannot be done, nobody knows how it ended."""
        body = answer.body if len(answer.body) <= _LARGEST_BODY else None
        try:
            await until_answered(
                lambda: self._store.complete(
                    attempt.owner_id,
                    attempt.key,
                    attempt.id,
                    status=answer.status,
                    headers=answer.headers,
                    body=body,
                ),
                attempts=_ATTEMPTS,
            )
        except DatabaseError as error:
            _log.warning("an answer could not be kept for its Idempotency-Key: %s", error)

    async def forget(self, attempt: Attempt) -> None:
        """Give the key back, as nothing was done."""
        try:
            await until_answered(
                lambda: self._store.forget(attempt.owner_id, attempt.key, attempt.id), attempts=_ATTEMPTS
            )
        except DatabaseError as error:
            _log.warning("an Idempotency-Key could not be given back: %s", error)

    async def _reserve(self, attempt: Attempt, fingerprint: bytes) -> Reserved:
        return await until_answered(
            lambda: self._store.reserve(
                attempt.owner_id,
                attempt.key,
                fingerprint=fingerprint,
                attempt_id=attempt.id,
                replica_id=self._replica_id,
                keep_seconds=KEPT_SECONDS,
                most=_KEYS_PER_USER,
            ),
            attempts=_ATTEMPTS,
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Throw away every ten minutes what is kept no longer."""
        sweeping = asyncio.create_task(self._keep_clean())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def sweep(self) -> int:
        """Throw away what is kept no longer; returns how many answers that were."""
        count = 0
        while gone := await self._store.prune(limit=_SWEPT_AT_ONCE):
            count += gone
        return count

    async def _keep_clean(self) -> None:
        while True:
            try:
                await self.sweep()
            except DatabaseError as error:
                _log.warning("could not throw away old answers: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)


def _answer(known: KnownRequest, fingerprint: bytes) -> KeptAnswer:
    if known.fingerprint != fingerprint:
        raise KeyReused(field="Idempotency-Key")
    if known.status is None and known.is_alive:
        raise InProgress(retry_after=1)
    if known.status is None or known.body is None:
        raise OutcomeUnknown
    return KeptAnswer(known.status, known.headers or {}, known.body)
