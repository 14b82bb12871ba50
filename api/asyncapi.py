"""The AsyncAPI 3.0 document of both sockets, made from the models that validate their frames."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, TypeAdapter

from websocket.connection import CLOSE_CODES
from websocket.dialect import MultiplexedClientFrame, MultiplexedServerFrame
from websocket.frames import ClientFrame, ServerFrame

_ABOUT = """The sockets. A frame is one JSON object in one text message.

With accounts a socket needs to know who is there. Programs show an access token or an API key in the `Authorization`
header of the handshake. Pages cannot send one: their first frame is `authenticate`, with a ticket from
`POST /api/auth/ws-ticket` or with a token; until it has come nothing else is taken or told, and not for long. It takes
the scope `read` to connect, and `chat` to have anything done. Tokens never stand in an address. Refusals come after the
handshake was accepted, as close codes (`x-close-codes`), because browsers do not show anything else."""
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An access token or an API key; not needed where the first frame is `authenticate`, nor without"
    " accounts.",
}
_REFERENCE = "#/components/schemas/{model}"
_POSITION = {
    "query": {
        "type": "object",
        "properties": {
            "after": {"type": "integer", "minimum": 0, "description": "Replay what came after this position."},
            "epoch": {"type": "string", "format": "uuid", "description": "The epoch that the position belongs to."},
        },
    }
}


def asyncapi_document(version: str, host: str) -> dict[str, Any]:
    """The document of the service that is called `host`."""
    schemas: dict[str, Any] = {}
    channels = {
        "session": _channel(
            "/ws/chat/{session_id}",
            "One socket on one session: what happens in it comes as events, messages and interrupts go to it.",
            [*_models(ClientFrame), *_models(ServerFrame)],
        )
        | {"parameters": {"session_id": {"description": "The id of a session."}}, "bindings": {"ws": _POSITION}},
        "multiplexed": _channel(
            "/ws/chat",
            "One socket for any number of conversations.",
            [*_models(MultiplexedClientFrame), *_models(MultiplexedServerFrame)],
        ),
    }
    operations = {
        **_operations("session", ClientFrame, "receive"),
        **_operations("session", ServerFrame, "send"),
        **_operations("multiplexed", MultiplexedClientFrame, "receive"),
        **_operations("multiplexed", MultiplexedServerFrame, "send"),
    }
    messages: dict[str, Any] = {}
    for union in (ClientFrame, ServerFrame, MultiplexedClientFrame, MultiplexedServerFrame):
        adapter: TypeAdapter[Any] = TypeAdapter(union)
        schemas |= adapter.json_schema(ref_template=_REFERENCE)["$defs"]
        messages |= {model.__name__: _message(model) for model in _models(union)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Colloquy",
            "version": version,
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "servers": {
            "here": {
                "host": host,
                "protocol": "ws",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas, "securitySchemes": {"bearer": _BEARER}},
    }


def _models(union: Any) -> Sequence[type[BaseModel]]:
    """The members of an Annotated union."""
    return get_args(get_args(union)[0])


def _channel(address: str, description: str, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    messages = {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in models}
    codes = {str(code): meaning for code, meaning in CLOSE_CODES.items()}
    return {"address": address, "description": description, "messages": messages, "x-close-codes": codes}


def _operations(channel: str, union: Any, action: Literal["send", "receive"]) -> dict[str, Any]:
    """One operation for each direction; the action is the service's, not the client's."""
    messages = [{"$ref": f"#/channels/{channel}/messages/{model.__name__}"} for model in _models(union)]
    operation = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": messages}
    return {f"{channel}{action.capitalize()}": operation}


def _message(model: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": model.__name__,
        "summary": (model.__doc__ or "").strip().split("\n", 1)[0],
        "payload": {"$ref": _REFERENCE.format(model=model.__name__)},
    }
