"""Connections to model servers: those that users save, beside the service's own."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from api.dependencies import Connections, CurrentUser, ExpectedVersion, takes_json
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.connections import (
    Connection,
    ConnectionCreate,
    ConnectionPage,
    ConnectionProbe,
    ConnectionTest,
    ConnectionUpdate,
    OfferedModel,
    OfferedModels,
)
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next

router = APIRouter(
    prefix="/api/connections", tags=["connections"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)

Reference = Annotated[Text, Path(max_length=100, description="The name or the id of a connection.")]
Provider = Annotated[
    Text,
    Path(
        max_length=100,
        description="The name or the id of a connection; or `openai`, `azure` or `ollama` with settings in the body, "
        "to try what is not saved.",
    ),
]


@router.post(
    "", status_code=201, operation_id="createConnection", dependencies=[Once], responses=problems(409, changes=True)
)
async def create_connection(
    body: ConnectionCreate, user: CurrentUser, connections: Connections, response: Response
) -> Connection:
    """Save the address and the key of a model server."""
    made = Connection.of(await connections.service.create(user, body.settings()))
    response.headers["location"] = f"/api/connections/{made.id}"
    return _tagged(made, response)


@router.get("", operation_id="listConnections", responses=problems())
async def list_connections(
    request: Request,
    response: Response,
    user: CurrentUser,
    connections: Connections,
    before: Before = None,
    limit: Limit = 50,
) -> ConnectionPage:
    """Your connections, newest first, then those of the service itself."""
    found, following = await connections.service.list(user, before=before, limit=limit)
    link_next(request, response, cursor_of(following))
    return ConnectionPage(items=[Connection.of(one) for one in found], next_cursor=cursor_of(following))


@router.get("/{connection}", operation_id="getConnection", responses=problems(404))
async def get_connection(
    connection: Reference, user: CurrentUser, connections: Connections, response: Response
) -> Connection:
    """One connection."""
    return _tagged(Connection.of(await connections.service.get(user, connection)), response)


@router.put("/{connection}", operation_id="putConnection", responses=problems(404, 409, 412, changes=True))
@router.patch("/{connection}", operation_id="updateConnection", responses=problems(404, 409, 412, changes=True))
async def update_connection(
    connection: Reference,
    body: ConnectionUpdate,
    version: ExpectedVersion,
    user: CurrentUser,
    connections: Connections,
    response: Response,
) -> Connection:
    """Change the fields that are given. A new address needs its key again."""
    updated = await connections.service.update(user, connection, body.settings(), version=version)
    return _tagged(Connection.of(updated), response)


@router.delete(
    "/{connection}", status_code=204, operation_id="deleteConnection", responses=problems(404, 409, 412, changes=True)
)
async def delete_connection(
    connection: Reference, version: ExpectedVersion, user: CurrentUser, connections: Connections
) -> None:
    """Delete a connection and its key. What names it fails from now on: nobody else is asked in its place."""
    await connections.service.delete(user, connection, version=version)


@router.post("/{provider}/test", operation_id="testConnection", responses=problems(404, 409, 429, changes=True))
async def try_connection(
    provider: Provider, user: CurrentUser, connections: Connections, body: ConnectionProbe | None = None
) -> ConnectionTest:
    """Try a connection. What the model server does wrong is the answer."""
    settings = body.settings() if body else {}
    result = await connections.trials.test(user, provider, settings, model=body and body.model)
    return ConnectionTest.of(result)


@router.post("/{provider}/models", operation_id="listModels", responses=problems(404, 409, 429, 502, 504, changes=True))
async def list_models(
    provider: Provider, user: CurrentUser, connections: Connections, body: ConnectionProbe | None = None
) -> OfferedModels:
    """The models that a connection offers."""
    found = await connections.trials.models(user, provider, body.settings() if body else {})
    return OfferedModels(models=[OfferedModel.of(info) for info in found])


def _tagged(connection: Connection, response: Response) -> Connection:
    if connection.version is not None:
        response.headers["etag"] = f'"{connection.version}"'
    return connection
