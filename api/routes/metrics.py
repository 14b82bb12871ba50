"""What is measured, for Prometheus."""

import secrets
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import Administrator
from api.routes.responses import Responses, problems
from api.settings import Settings
from services.errors import NotAuthenticated
from services.telemetry.meters import CONTENT_TYPE, Meters

_TEXT: Responses = {
    200: {"description": "All figures.", "content": {"text/plain": {"schema": {"type": "string"}}}},
}


def metrics_router(settings: Settings, meters: Meters) -> APIRouter:
    """`/metrics`, for whoever shows METRICS_TOKEN if there is one; otherwise for administrators."""
    router = APIRouter(tags=["service"], dependencies=[Depends(_guard(settings))])

    @router.get(
        "/metrics",
        operation_id="getMetrics",
        response_class=Response,
        responses=_TEXT | problems(401, 403),
    )
    async def get_metrics() -> Response:
        """What is measured, in the text format of Prometheus. Touches no database."""
        return Response(meters.told(), media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})

    return router


def _guard(settings: Settings) -> Callable[..., Any]:
    if settings.metrics_token is None:
        return _administrators
    expected = f"Bearer {settings.metrics_token.get_secret_value()}".encode()

    async def shows_token(request: Request) -> None:
        shown = request.headers.get("authorization", "").encode("latin-1", "replace")
        if not secrets.compare_digest(shown, expected):
            raise NotAuthenticated("Show METRICS_TOKEN: Authorization: Bearer ….")

    return shows_token


async def _administrators(_admin: Administrator) -> None:
    return None
