"""What the service says about itself."""

from fastapi import APIRouter, Request

from api.callers import MaybeCaller
from api.dependencies import Connections, CurrentSettings, Health, ModelServers, Tools, ToolServers
from api.routes.responses import problems
from api.schemas import service
from services.health import Part
from services.mcp.types import ServerStatus
from services.providers.controls import CONTROLS, REASONING_LEVELS

router = APIRouter(tags=["service"])


@router.get("/livez", operation_id="getLiveness", responses=problems(public=True))
async def livez() -> service.Alive:
    """Whether the process answers; touches nothing."""
    return service.Alive()


@router.get("/readyz", operation_id="getReadiness", responses=problems(public=True))
async def readyz(health: Health) -> service.Ready:
    """Whether new work is taken: the database answers, its schema is ours, and the service is not going down."""
    await health.ready()
    return service.Ready()


@router.get("/api/health", operation_id="getHealth", responses=problems(401, public=True))
async def get_health(health: Health, caller: MaybeCaller) -> service.Health | service.HealthInShort:
    """How each part of the service is, for people; who is not signed in is told in one word."""
    parts = await health.parts()
    status = "ok" if all(part.works for part in parts if part.is_essential) else "failing"
    if caller is None:
        return service.HealthInShort(status=status)
    return service.Health(status=status, parts=[_shown(part) for part in parts])


@router.get("/api/config", operation_id="getConfig", responses=problems(401, public=True))
async def get_config(
    request: Request,
    settings: CurrentSettings,
    caller: MaybeCaller,
    providers: ModelServers,
    connections: Connections,
    tool_servers: ToolServers,
    tools: Tools,
) -> service.Config | service.ConfigInShort:
    """What a client has to know: model servers, tool servers, limits, version; before signing in, how to do that."""
    in_short = service.ConfigInShort(
        version=request.app.version, auth_mode=settings.auth_mode, registration=settings.registration
    )
    if caller is None:
        return in_short
    servers = [providers.get(name) for name in providers.names]
    saved = await connections.service.saved(caller.user_id)
    return service.Config(
        **in_short.model_dump(),
        default_provider=providers.default,
        default_model=providers.get().default_model,
        providers=[
            *(service.ModelServer(name=one.name, kind=one.kind, default_model=one.default_model) for one in servers),
            *(service.ModelServer.saved(one) for one in saved if one.is_active),
        ],
        tool_servers=[_told(status) for status in tool_servers.servers()],
        built_in_tools=[service.BuiltInTool(name=tool.name, description=tool.description) for tool in tools.offers],
        reasoning_levels=list(REASONING_LEVELS),
        controls=[
            service.SamplingControl(
                name=name, about=control.about, values=control.values, value_schema=dict(control.schema)
            )
            for name, control in CONTROLS.items()
        ],
        limits=service.PublicLimits.model_validate(
            settings.limits.model_dump(include=set(service.PublicLimits.model_fields))
        ),
    )


def _shown(part: Part) -> service.HealthPart:
    return service.HealthPart(name=part.name, status="ok" if part.works else "failing", detail=part.detail, ms=part.ms)


def _told(status: ServerStatus) -> service.ToolServer:
    return service.ToolServer(
        name=status.name,
        description=status.description,
        default=status.default,
        isolation=status.isolation,
        state=status.state,
        tools=None if status.tools is None else [service.Tool.model_validate(tool) for tool in status.tools],
    )
