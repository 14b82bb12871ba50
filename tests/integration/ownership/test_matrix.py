"""Who is not the owner finds nothing: every operation, with every id that it takes, as a stranger, as nobody, by half.

The operations and the places of ids are read from the service's own description. A place that is not known here fails a
test, so nothing that is added later is left out.
"""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import httpx2
import pytest

from tests.integration.ownership.conftest import World, random_id
from tests.integration.ownership.surface import Operation, Place, operations

OPERATIONS = operations()

KINDS = {
    "active_message_id": "message",
    "attachments": "file",
    "branch": "message",
    "connection": "connection",
    "connection_id": "connection",
    "conversation_id": "session",
    "file_id": "file",
    "image": "image",
    "image_id": "image",
    "invitation_id": "invitation",
    "key_id": "api_key",
    "message_id": "message",
    "module_id": "module",
    "modules": "module",
    "parent_id": "message",
    "persona_id": "persona",
    "provider": "connection",
    "replaces": "message",
    "run_id": "run",
    "session_id": "session",
    "sign_in_id": "sign_in",
    "tool_call_id": "tool_call",
    "user_id": "user",
}
"""What an id of that name is the id of."""

BELONGS_TO_NOBODY = {"epoch"}
"""Ids that open nothing by themselves."""

OWN_WORDS = {
    ("importSession", "files"),
    ("importSession", "messages"),
    ("importPersonas", "image"),
    ("importPersonas", "connection"),
}
"""Fields of documents that are read in: what they name is in the document, not in the service."""

BODIES: Mapping[str, Any] = {
    "createModule": {"name": "another", "content": "Another."},
    "createPersona": {"name": "Another"},
    "decideApproval": {"decision": "approve"},
    "addMessage": {"role": "user", "content": "Psst."},
    "regenerateReply": {},
    "resolveTemplate": {"template": "Hello."},
    "sendMessage": {"content": "Psst."},
    "testScript": {"script": "1"},
}
"""The fields that an operation insists on, beside ids."""

ADMINISTRATION = {
    "createInvitation",
    "deleteInvitation",
    "deleteUser",
    "getDatabaseInfo",
    "getMetrics",
    "getUser",
    "listAuditEntries",
    "listInvitations",
    "listUsers",
    "resetPassword",
    "testDatabase",
    "updateUser",
}
"""Operations for who looks after the service, and nobody else."""

HARMLESS = {"issueTicket", "logOut"}
"""Operations that change nothing but what the caller showed itself: any key will do."""

PUBLIC = {"getLiveness", "getReadiness", "getHealth", "getConfig", "registerAccount", "logIn", "refreshTokens"}
"""Operations that need no account."""


def cells(where: str) -> list[Any]:
    """Each operation with each id that may be somebody else's."""
    return [
        pytest.param(operation, place, id=f"{operation.id}-{'/'.join(place.steps)}")
        for operation in OPERATIONS
        for place in (operation.in_path if where == "path" else operation.elsewhere)
        if place.name not in BELONGS_TO_NOBODY and (operation.id, place.steps[0]) not in OWN_WORDS
    ]


@pytest.mark.parametrize(("operation", "place"), [*cells("path"), *cells("elsewhere")])
async def test_somebody_elses_id_is_as_good_as_none(world: World, operation: Operation, place: Place) -> None:
    kind = KINDS[place.name]
    theirs, nothing = world.owner.things[kind], random_id(kind)
    before = await world.state()

    answer = await _ask(world.stranger.http, operation, world.stranger.things, place, theirs)
    assert answer.status_code in ((403,) if operation.id in ADMINISTRATION else (404, 422)), answer.text
    same = await _ask(world.stranger.http, operation, world.stranger.things, place, nothing)
    assert _told(answer, theirs) == _told(same, nothing), "it tells that there is something"

    assert await world.state() == before


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if len(one.in_path) > 1], ids=lambda one: one.id)
async def test_a_path_that_is_somebody_elses_throughout_leads_nowhere(world: World, operation: Operation) -> None:
    before = await world.state()
    answer = await _ask(world.stranger.http, operation, world.owner.things)
    assert answer.status_code == 404, answer.text
    assert await world.state() == before


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.id in ADMINISTRATION], ids=lambda one: one.id)
async def test_only_who_looks_after_the_service_may(world: World, operation: Operation) -> None:
    before = await world.state()
    answer = await _ask(world.stranger.http, operation, world.owner.things)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text
    assert await world.state() == before


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.id not in PUBLIC], ids=lambda one: one.id)
async def test_nobody_gets_nothing(world: World, operation: Operation) -> None:
    before = await world.state()
    answer = await _ask(world.nobody, operation, world.owner.things)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await world.state() == before


@pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if one.changes and one.id not in PUBLIC | HARMLESS],
    ids=lambda one: one.id,
)
async def test_a_key_for_reading_changes_nothing(world: World, operation: Operation) -> None:
    before = await world.state()
    answer = await _ask(world.reader, operation, world.owner.things)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text
    assert await world.state() == before


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if not one.changes and one.id not in PUBLIC], ids=lambda one: one.id
)
async def test_a_key_for_chatting_reads_nothing(world: World, operation: Operation) -> None:
    answer = await _ask(world.chatter, operation, world.owner.things)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.method == "GET" and not one.places], ids=lambda one: one.id
)
async def test_what_is_listed_is_ones_own(world: World, operation: Operation) -> None:
    query = {"q": "secret"} if operation.id == "searchMessages" else {}
    answer = await world.stranger.http.get(operation.path, params=query)
    assert answer.status_code == (403 if operation.id in ADMINISTRATION else 200), answer.text
    for kind, theirs in world.owner.things.items():
        assert theirs not in answer.text, f"the list has the owner's {kind}"


def test_every_place_of_an_id_is_known() -> None:
    for operation in OPERATIONS:
        for place in operation.places:
            known = (
                place.name in KINDS or place.name in BELONGS_TO_NOBODY or (operation.id, place.steps[0]) in OWN_WORDS
            )
            assert known, f"{operation.id} takes {'/'.join(place.steps)}: say in KINDS what it is the id of"


def test_the_words_of_this_matrix_are_those_of_the_service() -> None:
    ids = {operation.id for operation in OPERATIONS}
    named = {place.name for operation in OPERATIONS for place in operation.places}
    assert ids >= {*BODIES, *PUBLIC, *ADMINISTRATION, *HARMLESS, *(operation_id for operation_id, _ in OWN_WORDS)}
    assert named >= {*KINDS, *BELONGS_TO_NOBODY}


async def _ask(
    http: httpx2.AsyncClient,
    operation: Operation,
    things: Mapping[str, str],
    place: Place | None = None,
    value: str = "",
) -> httpx2.Response:
    """Carry out `operation` with ids of `things`, but with `value` at `place`."""
    path = operation.path
    for one in operation.in_path:
        given = value if one == place else things[KINDS[one.name]]
        path = path.replace(f"{{{one.steps[0]}}}", bare(given))
    query = {place.steps[0]: value} if place and place.where == "query" else {}
    request: dict[str, Any] = {}
    if operation.media_type == "multipart/form-data":
        request["files"] = {"file": ("x.txt", b"words")}
    elif operation.media_type is not None:
        body: Any = json.loads(json.dumps(BODIES.get(operation.id, {})))
        if place and place.where == "body":
            _put(body, place.steps, value)
        request["json"] = body
    if operation.id == "searchMessages":
        query["q"] = "words"
    return await http.request(operation.method, path, params=query, **request)


def bare(id: str) -> str:
    """What of an id stands in a path: pictures are called by theirs elsewhere."""
    return PurePosixPath(id).stem


def _put(body: dict[str, Any], steps: tuple[str, ...], value: str) -> None:
    """Set a field; a step called 0 is the only item of a list."""
    name, *rest = steps
    if not rest:
        body[name] = value
    elif rest == ["0"]:
        body[name] = [value]
    else:
        inner: dict[str, Any] = {}
        body[name] = [inner] if rest[0] == "0" else inner
        _put(inner, tuple(rest[1:] if rest[0] == "0" else rest), value)


def _told(answer: httpx2.Response, id: str) -> tuple[int, Any]:
    """What an answer says, without what differs between any two."""
    problem = json.loads(answer.text.replace(bare(id), "<id>"))
    problem.pop("request_id")
    return answer.status_code, problem
