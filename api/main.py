"""The application, from its settings."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from api.accounts import setup_lines
from api.assembly import Services, open_services
from api.errors import register_error_handlers
from api.logs import name_replica
from api.middleware import add_middleware
from api.middleware.access import count
from api.routes import chat, routers
from api.routes.metrics import metrics_router
from api.settings import Settings
from api.tracing import Tracing, tracing_of
from api.version import service_version
from services.telemetry.meters import Meters


def create_app(settings: Settings, database_url: str, tracing: Tracing | None = None) -> FastAPI:
    """The application on a database that has been migrated. Nothing is opened before its lifespan begins.

    `tracing` goes in the place of what the environment says of it.
    """
    tracing = tracing or tracing_of()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            tracing.closing(stack)
            services = await open_services(settings, database_url, stack, meters)
            app.state.services = services
            name_replica(services.engine.replica_id)
            app.state.banner = _banner(services)
            app.state.drain = lambda: _drain(services)
            app.state.hurry = services.engine.hurry
            yield

    meters = Meters(tracing.tracer)
    app = FastAPI(
        title="Colloquy",
        version=service_version(),
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=tracing.config,
    )
    register_error_handlers(app)
    everything = (*routers, chat.router, metrics_router(settings, meters))
    routes = [route for router in everything for route in router.routes]
    add_middleware(app, settings, routes, lambda exchange: count(meters, exchange))
    for router in everything:
        app.include_router(router)
    return app


async def _drain(services: Services) -> None:
    """End what is only tried out, let running replies end, interrupt what is left, then tell whoever reads or waits."""
    patience = services.settings.timeouts.drain
    services.lab.shut_down()
    try:
        # Not all of it: what is interrupted at the end still has to be written.
        await services.engine.drain(patience * 0.7)
    finally:
        await services.connections.shut_down(reconnect_after_ms=1000)
        services.streams.close()
        services.replies.shut_down()


def _banner(services: Services) -> list[str]:
    names = services.providers.names
    setup = setup_lines(services.accounts)
    if services.providers.default == "demo":
        return [*setup, "No model server is configured: the offline demo answers. Set OPENAI_API_KEY or start Ollama."]
    return [
        *setup,
        f"Model servers: {', '.join(name for name in names if name != 'demo')}; default: {services.providers.default}",
    ]
