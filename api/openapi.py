"""The OpenAPI document: REST as FastAPI sees it, errors as we answer them, and the sockets' frames."""

from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from api.schemas.problems import Problem
from websocket.frames import ClientFrame, ServerFrame

_REFERENCE = "#/components/schemas/{model}"
_ABOUT = "Chat with personas. Whatever a client was shown is stored, and can be read again from where it stopped."
_TAGS = [
    {"name": "users", "description": "All accounts, and invitations, for administrators."},
    {"name": "sessions", "description": "Chat threads."},
    {"name": "conversations", "description": "The same chat threads under their other name."},
    {"name": "messages", "description": "What was said, whole and for good."},
    {"name": "runs", "description": "Sending a message, reading its reply as it comes, stopping it."},
    {"name": "personas", "description": "Who answers: a prompt with a model and its settings."},
    {"name": "modules", "description": "The parts that prompts are made of: texts, and scripts that make texts."},
    {"name": "templates", "description": "Prompts before they are saved."},
    {"name": "memories", "description": "What scripts kept of a thread."},
    {"name": "files", "description": "What was uploaded into a thread, and its text."},
    {"name": "connections", "description": "Model servers: the addresses and keys that you have saved."},
    {"name": "auth", "description": "Registering, signing in and out; who asks, and what shows it."},
    {"name": "service", "description": "Health and configuration."},
]


def openapi_document(app: FastAPI, *, has_accounts: bool) -> dict[str, Any]:
    """The document for `app`; made once. Without accounts nobody has to show who they are."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=_ABOUT,
            tags=_TAGS,
            routes=app.routes,
            separate_input_output_schemas=False,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (Problem, ClientFrame, ServerFrame):
            schemas |= definitions(model)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        if not has_accounts:
            _open(document)
        _leave_out_defaults(schemas)
        app.openapi_schema = _renamed(document)
    return app.openapi_schema


def _open(document: dict[str, Any]) -> None:
    document["components"].pop("securitySchemes", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)


def _leave_out_defaults(schemas: dict[str, Any]) -> None:
    """Of changes: there, what is left out stays as it is."""
    for name, schema in schemas.items():
        if name.endswith("Update"):
            for field in schema["properties"].values():
                field.pop("default", None)


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with names that programs can have for types."""
    text = orjson.dumps(document).decode()
    for old, new in _RENAMED.items():
        text = text.replace(f'"{old}"', f'"{new}"').replace(f'/{old}"', f'/{new}"')
    return orjson.loads(text)


def definitions(model: Any) -> dict[str, Any]:
    """JSON schemas, by name, of a model or a union of models and of all that they refer to."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    schema = adapter.json_schema(ref_template=_REFERENCE, mode="validation")
    inner: dict[str, Any] = schema.pop("$defs", {})
    name = schema.get("title") or _NAMES[model]
    return {**inner, name: schema}


_RENAMED = {"Body_uploadPersonaImage": "PersonaImageUpload"}
"""Of forms, whose models FastAPI makes by itself."""

_NAMES = {ClientFrame: "ClientFrame", ServerFrame: "ServerFrame"}
