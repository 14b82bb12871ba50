"""One file per noun; a route is parameters, one service call, return."""

from fastapi import APIRouter

from api.routes import (
    api_keys,
    approvals,
    audit,
    auth,
    connections,
    context,
    database,
    documents,
    files,
    images,
    library,
    memories,
    messages,
    modules,
    personas,
    runs,
    service,
    templates,
    transfer,
    usage,
    users,
)
from api.routes.sessions import conversations_router, sessions_router

routers: tuple[APIRouter, ...] = (
    auth.router,
    users.router,
    api_keys.router,
    images.router,
    library.router,
    personas.router,
    modules.router,
    templates.router,
    transfer.router,
    sessions_router,
    conversations_router,
    files.router,
    context.router,
    approvals.router,
    memories.router,
    messages.router,
    runs.router,
    connections.router,
    service.router,
    usage.router,
    database.router,
    audit.router,
    documents.router,
)
