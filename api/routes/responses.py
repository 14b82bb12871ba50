"""How routes document what they may answer instead."""

from http import HTTPStatus
from typing import Any

from api.errors import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "The body is not JSON, or the host is not trusted.",
    401: "Nobody is known by what the request shows.",
    403: "What was shown does not allow it, or a page of a foreign origin asks for a change.",
    404: "There is no such thing, or it is somebody else's.",
    409: "It does not fit the present state: a name is taken, or a reply is running.",
    412: "It was changed since the version that If-Match names.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request is malformed; `errors` says where.",
    429: "Too much at once; Retry-After says how long to wait.",
    500: "The service failed.",
    503: "The service cannot do it just now; Retry-After says when to try again.",
    504: "It took too long.",
}
_NOT_MODIFIED: Responses = {304: {"description": "It is still what If-None-Match names."}}
_ANY_REQUEST = (400, 422, 500, 503)
_ANY_CALLER = (401, 403, 429)
_ANY_CHANGE = (403, 413, 415)


def problems(*statuses: int, changes: bool = False, public: bool = False) -> Responses:
    """The documentation of those problems and of the ones that every request can meet; `public` ones need no caller."""
    wanted = {*statuses, *_ANY_REQUEST, *(() if public else _ANY_CALLER), *(_ANY_CHANGE if changes else ())} - {304}
    schema = {"$ref": "#/components/schemas/Problem"}
    described: Responses = {
        status: {
            "description": _MEANINGS.get(status, HTTPStatus(status).phrase),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in wanted
    }
    return described | _NOT_MODIFIED if 304 in statuses else described
