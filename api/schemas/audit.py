"""The audit log over REST."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field

from api.schemas.model import Answer
from api.schemas.pages import Page
from db.records import AuditRecord


class AuditCredential(Answer):
    """What somebody showed."""

    kind: str = Field(description="`sign_in` or `api_key`.")
    id: UUID | None


class AuditSubject(Answer):
    """What it was done to. It may be gone."""

    kind: str
    id: str | None


class AuditEntry(Answer):
    """One thing that was done, or refused."""

    id: UUID
    at: datetime
    user_id: UUID | None = Field(description="Who did it; null if nobody was known. The account may be gone.")
    credential: AuditCredential | None
    action: str
    subject: AuditSubject
    outcome: Literal["done", "refused"]
    address: str | None = Field(description="The network address that it came from.")
    request_id: str | None = Field(description="The X-Request-Id of the answer, also in the log of the service.")
    details: dict[str, Any]

    @classmethod
    def of(cls, record: AuditRecord) -> Self:
        """What a client sees of the record."""
        credential = (
            AuditCredential(kind=record.credential_kind, id=record.credential_id) if record.credential_kind else None
        )
        return cls(
            id=record.id,
            at=record.at,
            user_id=record.user_id,
            credential=credential,
            action=record.action,
            subject=AuditSubject(kind=record.subject_kind, id=record.subject_id),
            outcome="refused" if record.outcome == "refused" else "done",
            address=record.address,
            request_id=record.request_id,
            details=record.details,
        )


class AuditPage(Page[AuditEntry]):
    """Entries, newest first."""
