"""The raw list of a server's tools, relieved of what would make the client refuse it as a whole for one bad tool."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

PERMISSIVE: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": True}
"""What a tool is offered with whose own schema cannot be used: the server itself still checks what it is given."""

_TEXTS = ("title", "description")
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


def plain_tools(listed: Iterable[object]) -> list[dict[str, Any]]:
    """The tools that have a name, with what of the rest is of the right kind; schemas of results are left out."""
    return [_plain(cast("dict[str, Any]", tool)) for tool in listed if _has_name(tool)]


def _has_name(tool: object) -> bool:
    return isinstance(tool, dict) and isinstance(cast("dict[str, object]", tool).get("name"), str)


def _plain(tool: Mapping[str, Any]) -> dict[str, Any]:
    texts = {key: tool[key] for key in _TEXTS if isinstance(tool.get(key), str)}
    annotations = tool.get("annotations")
    hints = cast("dict[str, Any]", annotations) if isinstance(annotations, dict) else {}
    return {
        "name": tool["name"],
        **texts,
        "inputSchema": _object_schema(tool.get("inputSchema")),
        "annotations": {key: hints[key] for key in _HINTS if isinstance(hints.get(key), bool)},
    }


def _object_schema(schema: object) -> Mapping[str, Any]:
    """The schema if the protocol allows it, which is stricter than JSON Schema."""
    if not isinstance(schema, dict):
        return PERMISSIVE
    fields = cast("dict[str, Any]", schema)
    properties, required = fields.get("properties", {}), fields.get("required", [])
    is_allowed = (
        fields.get("type") == "object"
        and isinstance(properties, dict)
        and all(isinstance(one, dict | bool) for one in cast("dict[str, object]", properties).values())
        and isinstance(required, list)
        and all(isinstance(one, str) for one in cast("list[object]", required))
        and isinstance(fields.get("$schema", ""), str)
    )
    return fields if is_allowed else PERMISSIVE
