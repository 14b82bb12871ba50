"""One file per noun; a route is parameters, one service call, return."""

from fastapi import APIRouter

from api.routes import documents, messages, personas, runs, service
from api.routes.sessions import conversations_router, sessions_router

routers: tuple[APIRouter, ...] = (
    personas.router,
    sessions_router,
    conversations_router,
    messages.router,
    runs.router,
    service.router,
    documents.router,
)
