"""Who did what that an operator may have to answer for: sign-ins, keys, permissions, deletions, exports."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from db.errors import DatabaseError
from db.ids import UserId, new_id
from db.records import AuditRecord
from db.stores.audit import AuditStore
from services.accounts.caller import Caller
from services.telemetry.circumstances import circumstances
from services.telemetry.meters import AuditMeter

_log = logging.getLogger(__name__)

Action = Literal[
    "user.register",
    "user.sign_in",
    "user.sign_out",
    "user.change_password",
    "user.change_permissions",
    "user.disable",
    "user.enable",
    "user.delete",
    "sign_in.reuse",
    "sign_in.revoke",
    "api_key.create",
    "api_key.use",
    "api_key.revoke",
    "invitation.create",
    "invitation.revoke",
    "connection.create",
    "connection.change",
    "connection.delete",
    "session.delete",
    "session.clear_memories",
    "session.export",
    "session.import",
    "message.delete",
    "file.delete",
    "persona.delete",
    "module.delete",
    "library.export",
    "library.import",
    "database.back_up",
    "database.restore",
]
"""What is noted: a kind of thing and what was done with it. docs/observing.md says what each means."""

Outcome = Literal["done", "refused"]

_MOST_DETAILS = 12
_LONGEST_DETAIL = 200
_SWEEP_SECONDS = 3600.0
_SWEPT_AT_ONCE = 10_000


class AuditLog:
    """Notes what was done and shows it again. Nothing that it has taken is ever changed."""

    def __init__(self, store: AuditStore, meter: AuditMeter, *, retention_days: int) -> None:
        self._store = store
        self._meter = meter
        self._retention_days = retention_days

    async def note(
        self,
        who: Caller | UserId | None,
        action: Action,
        subject: UUID | str | None = None,
        /,
        *,
        outcome: Outcome = "done",
        **details: object,
    ) -> None:
        """Note that `who` did this, to what has that id, through which credential and from where.

        Call it once it is done: before the answer, after the commit. Details are short facts, never secrets. Where the
        database does not take the entry, the log of the service has it: what was done is not undone for that.
        """
        around = circumstances()
        credential = who.credential if isinstance(who, Caller) else around.credential
        entry: dict[str, Any] = {
            "user_id": who.user_id if isinstance(who, Caller) else who,
            "credential_kind": credential and credential.kind,
            "credential_id": credential and credential.id,
            "action": action,
            "subject_kind": action.partition(".")[0],
            "subject_id": None if subject is None else str(subject),
            "outcome": outcome,
            "address": around.address,
            "request_id": around.request_id,
            "details": _bounded(details),
        }
        self._meter.noted(action, outcome)
        _log.info("audit: %s %s", action, outcome, extra={key: value for key, value in entry.items() if value})
        try:
            await self._store.add(new_id(), **entry)
        except DatabaseError as error:
            _log.error("an entry of the audit log is only here, the database does not take it: %s; %s", entry, error)

    async def list(
        self,
        *,
        user_id: UserId | None = None,
        action: Action | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None,
        limit: int,
    ) -> tuple[list[AuditRecord], UUID | None]:
        """Up to `limit` entries, newest first, of everybody or of one user, and where the next page begins if any."""
        wanted: dict[str, Any] = {"action": action, "since": since, "until": until, "before": before}
        if user_id is None:
            found = await self._store.newest(**wanted, limit=limit + 1)
        else:
            found = await self._store.newest_of(user_id, **wanted, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Take out what is older than it is to be kept, at once and every hour."""
        sweeping = asyncio.create_task(self._keep_short())
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def _keep_short(self) -> None:
        while True:
            try:
                while await self._store.sweep(older_than_days=self._retention_days, most=_SWEPT_AT_ONCE):
                    pass
            except DatabaseError as error:
                _log.warning("the audit log could not be swept: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)


def _bounded(details: Mapping[str, object]) -> dict[str, object]:
    return {name: _short(value) for name, value in list(details.items())[:_MOST_DETAILS] if value is not None}


def _short(value: object) -> object:
    match value:
        case bool() | int() | float():
            return value
        case list() | tuple() | set() | frozenset():
            return _cut(", ".join(sorted(str(one) for one in value)))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return _cut(str(value))


def _cut(text: str) -> str:
    text = text.replace("\0", "").encode(errors="replace").decode()
    return text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 1]}…"
