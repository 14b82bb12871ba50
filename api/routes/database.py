"""The database, for administrators."""

from fastapi import APIRouter

from api.dependencies import Administrator, Inspector
from api.routes.responses import problems
from api.schemas.database import DatabaseInfo, DatabaseTest

router = APIRouter(prefix="/api/database", tags=["service"])


@router.get("/test", operation_id="testDatabase", responses=problems(403))
async def try_database(_admin: Administrator, inspector: Inspector) -> DatabaseTest:
    """Ask the database something, and say how long that took; 503 if it does not answer."""
    return DatabaseTest(ms=await inspector.answer_ms())


@router.get("/info", operation_id="getDatabaseInfo", responses=problems(403))
async def get_database_info(_admin: Administrator, inspector: Inspector) -> DatabaseInfo:
    """Version, size, schema and connections of the database."""
    return DatabaseInfo.of(await inspector.report())
