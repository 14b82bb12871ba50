"""The audit log: all of it for administrators, for everybody what they did themselves."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import Administrator, Audit, CurrentUser
from api.routes.responses import problems
from api.schemas.audit import AuditEntry, AuditPage
from api.schemas.model import Moment
from api.schemas.pages import Before, Limit, cursor_of, link_next
from db.ids import UserId
from db.records import AuditRecord
from services.audit import Action

router = APIRouter(tags=["service"])


def _filter(
    action: Annotated[Action | None, Query(description="Only this was done.")] = None,
    since: Annotated[Moment | None, Query(alias="from", description="From then on.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Before then.")] = None,
) -> dict[str, Any]:
    return {"action": action, "since": since, "until": until}


_Filter = Annotated[dict[str, Any], Depends(_filter)]


@router.get("/api/audit", operation_id="listAuditEntries", responses=problems(403))
async def list_audit_entries(
    request: Request,
    response: Response,
    _admin: Administrator,
    audit: Audit,
    wanted: _Filter,
    user_id: Annotated[UUID | None, Query(description="Only what this user did, who may be gone.")] = None,
    before: Before = None,
    limit: Limit = 50,
) -> AuditPage:
    """Who did what: sign-ins, keys, permissions, deletions, exports; newest first."""
    user = user_id and UserId(user_id)
    return _page(request, response, *await audit.list(user_id=user, **wanted, before=before, limit=limit))


@router.get("/api/auth/me/audit", operation_id="listMyAuditEntries", responses=problems())
async def list_my_audit_entries(
    request: Request,
    response: Response,
    user: CurrentUser,
    audit: Audit,
    wanted: _Filter,
    before: Before = None,
    limit: Limit = 50,
) -> AuditPage:
    """The same of what the caller's account did, newest first."""
    return _page(request, response, *await audit.list(user_id=user, **wanted, before=before, limit=limit))


def _page(request: Request, response: Response, found: list[AuditRecord], following: UUID | None) -> AuditPage:
    link_next(request, response, cursor_of(following))
    return AuditPage(items=[AuditEntry.of(entry) for entry in found], next_cursor=cursor_of(following))
