"""Modules."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import CurrentUser, ExpectedVersion, Lab, Modules, WithinQuota, takes_json
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.lab import ScriptTrial, TriedScript
from api.schemas.model import Text
from api.schemas.modules import Functions, Module, ModuleCreate, ModulePage, ModuleUpdate, ScriptFindings, ScriptSource
from api.schemas.pages import Before, Limit, cursor_of, link_next
from db.ids import ModuleId
from db.records import ExecutionContext, ModuleType
from services.modules import ModuleFilter
from services.scripts.api import plugin_functions

router = APIRouter(prefix="/api/modules", tags=["modules"], route_class=StrictRoute, dependencies=[Depends(takes_json)])


@router.post(
    "", status_code=201, operation_id="createModule", responses=problems(409, changes=True), dependencies=[Once]
)
async def create_module(body: ModuleCreate, user: CurrentUser, modules: Modules, response: Response) -> Module:
    """Make a module. Its trigger and its script are checked."""
    module = Module.of(await modules.create(user, body.changes()))
    response.headers["location"] = f"/api/modules/{module.id}"
    return _tagged(module, response)


@router.get("", operation_id="listModules", responses=problems())
async def list_modules(
    request: Request,
    response: Response,
    user: CurrentUser,
    modules: Modules,
    type: ModuleType | None = None,
    execution_context: ExecutionContext | None = None,
    active: bool | None = None,
    q: Annotated[Text | None, Query(max_length=200, description="Looked for in names and descriptions.")] = None,
    before: Before = None,
    limit: Limit = 50,
) -> ModulePage:
    """Modules, newest first."""
    wanted = ModuleFilter(type, execution_context, active, q)
    found, following = await modules.list(user, wanted, before=before and ModuleId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return ModulePage(items=[Module.of(module) for module in found], next_cursor=cursor_of(following))


@router.get("/plugin-functions", operation_id="listPluginFunctions", responses=problems())
async def list_plugin_functions(user: CurrentUser) -> Functions:
    """Everything that a script can call, with its documentation."""
    return Functions.of(plugin_functions())


@router.post("/analyze-script", operation_id="analyzeScript", responses=problems(changes=True))
async def analyze_script(body: ScriptSource, user: CurrentUser, modules: Modules) -> ScriptFindings:
    """Read a script, and say what it does and what is wrong with it. It is not run."""
    return ScriptFindings.of(await modules.analyse(body.script))


@router.post(
    "/test-script",
    operation_id="testScript",
    responses=problems(404, 429, 504, changes=True),
    dependencies=[WithinQuota],
)
async def test_script(body: ScriptTrial, user: CurrentUser, lab: Lab) -> TriedScript:
    """Run a script as a turn would, and say what it did. Nothing is stored."""
    return TriedScript.of(await lab.try_script(body.script, body.content, body.scene(user), run_ai=body.run_ai))


@router.get("/{module_id}", operation_id="getModule", responses=problems(304, 404))
async def get_module(module_id: UUID, user: CurrentUser, modules: Modules, response: Response) -> Module:
    """One module."""
    return _tagged(Module.of(await modules.get(user, ModuleId(module_id))), response)


@router.put("/{module_id}", operation_id="putModule", responses=problems(404, 409, 412, changes=True))
@router.patch("/{module_id}", operation_id="updateModule", responses=problems(404, 409, 412, changes=True))
async def update_module(
    module_id: UUID,
    body: ModuleUpdate,
    version: ExpectedVersion,
    user: CurrentUser,
    modules: Modules,
    response: Response,
) -> Module:
    """Change the fields that are given."""
    return _tagged(
        Module.of(await modules.update(user, ModuleId(module_id), body.changes(), version=version)), response
    )


@router.delete(
    "/{module_id}", status_code=204, operation_id="deleteModule", responses=problems(404, 409, 412, changes=True)
)
async def delete_module(
    module_id: UUID,
    version: ExpectedVersion,
    user: CurrentUser,
    modules: Modules,
    force: Annotated[bool, Query(description="Delete it although it is used: its name then stays as text.")] = False,
) -> None:
    """Delete a module with what it remembers; refused with the list of its users if there are any."""
    await modules.delete(user, ModuleId(module_id), version=version, force=force)


def _tagged(module: Module, response: Response) -> Module:
    response.headers["etag"] = f'"{module.version}"'
    return module
