"""Templates before they are saved."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import CurrentUser, Lab, Templates, WithinQuota, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.lab import ResolvedTemplate, TemplateTrial
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.templates import AvailableModule, AvailableModules, TemplateFindings, TemplateSource
from db.ids import ModuleId

router = APIRouter(
    prefix="/api/templates", tags=["templates"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)


@router.post("/validate", operation_id="validateTemplate", responses=problems(changes=True))
async def validate_template(body: TemplateSource, user: CurrentUser, templates: Templates) -> TemplateFindings:
    """Say which modules a template names, and what would not work."""
    return TemplateFindings.of(await templates.validate(user, body.template, inside=body.inside))


@router.post(
    "/resolve",
    operation_id="resolveTemplate",
    responses=problems(404, 429, 504, changes=True),
    dependencies=[WithinQuota],
)
async def resolve_template(body: TemplateTrial, user: CurrentUser, lab: Lab) -> ResolvedTemplate:
    """Make the system prompt of a turn out of a template, and say how it came about. Nothing is stored."""
    return ResolvedTemplate.of(
        await lab.resolve(body.template, body.scene(user), run_scripts=body.run_scripts, run_ai=body.run_ai)
    )


@router.get("/modules/available", operation_id="listAvailableModules", responses=problems())
async def list_available_modules(
    request: Request,
    response: Response,
    user: CurrentUser,
    templates: Templates,
    q: Annotated[Text | None, Query(max_length=200, description="Looked for in names and descriptions.")] = None,
    before: Before = None,
    limit: Limit = 100,
) -> AvailableModules:
    """The modules that a template can name, for an editor to offer."""
    found, following = await templates.available(user, q=q, before=before and ModuleId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return AvailableModules(items=[AvailableModule.of(module) for module in found], next_cursor=cursor_of(following))
