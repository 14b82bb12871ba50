"""What was used."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import CurrentUser, Reports
from api.routes.responses import problems
from api.schemas.model import Moment
from api.schemas.usage import UsageOverview
from db.stores.usage import UsageGroup

router = APIRouter(tags=["service"])


@router.get("/api/usage", operation_id="getUsage", responses=problems())
async def get_usage(
    user: CurrentUser,
    reports: Reports,
    since: Annotated[Moment | None, Query(alias="from", description="By default thirty days before `to`.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Before then; by default now.")] = None,
    group_by: Annotated[
        UsageGroup,
        Query(
            description="`kind` tells replies from the modules, titles and summaries made after them, and from trials."
        ),
    ] = "day",
) -> UsageOverview:
    """How many tokens you have used, of which models and for what, and how many are left of today."""
    return UsageOverview.of(await reports.report(user, since=since, until=until, by=group_by))
