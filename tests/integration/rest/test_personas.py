"""Personas over REST."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service


async def test_a_persona_is_made_with_what_was_given_and_defaults_for_the_rest(http: httpx2.AsyncClient) -> None:
    name = f"Grace {uuid4()}"

    made = await http.post("/api/personas", json={"name": f"  {name} ", "controls": {"temperature": 1}})

    assert made.status_code == 201
    persona = made.json()
    assert persona["name"] == name
    assert persona["slug"].startswith("grace-")
    assert persona["mode"] == "reactive"
    assert persona["is_active"] is True
    assert persona["controls"] == {"temperature": 1}
    assert persona["created_at"].endswith("Z")
    assert made.headers["etag"] == '"1"'
    assert made.headers["location"] == f"/api/personas/{persona['id']}"
    assert (await http.get(made.headers["location"])).json() == persona


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_changes_only_what_is_given_and_null_clears(
    http: httpx2.AsyncClient, persona: dict[str, Any], method: str
) -> None:
    changes = {"description": "Brief.", "first_message": None}

    updated = await http.request(method, f"/api/personas/{persona['id']}", json=changes)

    expected = persona | changes | {"version": 2, "updated_at": updated.json()["updated_at"]}
    assert updated.json() == expected
    assert updated.headers["etag"] == '"2"'


async def test_a_stale_etag_changes_nothing(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    path = f"/api/personas/{persona['id']}"
    for method, body in (("PATCH", {"description": "x"}), ("PUT", {"description": "x"}), ("DELETE", None)):
        for etag in ('"7"', '"nonsense"', 'W/"1"', '""'):
            answer = await http.request(method, path, json=body, headers={"if-match": etag})
            problem(answer, 412, "stale_version")

    assert (await http.get(path)).json() == persona
    assert (await http.patch(path, json={}, headers={"if-match": "*"})).status_code == 200


async def test_a_name_can_be_used_once(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    other = (await http.post("/api/personas", json={"name": f"Other {uuid4()}"})).json()

    problem(await http.post("/api/personas", json={"name": persona["name"]}), 409, "conflict", "/name")
    renamed = await http.patch(f"/api/personas/{other['id']}", json={"name": persona["name"]})
    problem(renamed, 409, "conflict", "/name")


async def test_names_that_make_the_same_slug_get_different_ones(http: httpx2.AsyncClient) -> None:
    stem = uuid4()
    names = [f"Zoë {stem}{end}" for end in ("", "!", "?", "!!", "??", "!?")]

    slugs = [(await http.post("/api/personas", json={"name": name})).json()["slug"] for name in names]

    assert slugs[:2] == [f"zoe-{stem}", f"zoe-{stem}-2"]
    assert len(set(slugs)) == len(names)


async def test_a_name_without_latin_letters_has_a_slug_too(http: httpx2.AsyncClient) -> None:
    made = await http.post("/api/personas", json={"name": f"愛 {uuid4().int}".translate(_NO_DIGITS)})

    assert made.json()["slug"].startswith("persona")


_NO_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")


async def test_a_deleted_persona_is_gone_and_its_sessions_stay(
    http: httpx2.AsyncClient, persona: dict[str, Any]
) -> None:
    session = (await http.post("/api/sessions", json={"persona_id": persona["id"]})).json()

    deleted = await http.delete(f"/api/personas/{persona['id']}", headers={"if-match": '"1"'})

    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(await http.get(f"/api/personas/{persona['id']}"), 404, "not_found")
    assert (await http.get(f"/api/sessions/{session['id']}")).json()["persona_id"] is None


async def test_lists_are_filtered_and_walked_by_cursor(http: httpx2.AsyncClient) -> None:
    mark = uuid4().hex
    made = [
        (await http.post("/api/personas", json={"name": f"{mark} {n}", "is_active": n % 2 == 0})).json()["id"]
        for n in range(7)
    ]

    walked: list[str] = []
    path: str | None = f"/api/personas?limit=2&q={mark.upper()}"
    while path:
        page = await http.get(path)
        walked += [persona["id"] for persona in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None
        assert (path is None) == (page.json()["next_cursor"] is None)

    assert walked == made[::-1]
    active = await http.get("/api/personas", params={"q": mark, "active": True, "mode": "reactive"})
    assert [persona["id"] for persona in active.json()["items"]] == made[::-2]
    none = await http.get("/api/personas", params={"q": mark, "mode": "autonomous"})
    assert none.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "   "}, "/name"),
        ({"name": None}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "n" * 101}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"name": "n", "description": "d" * 2001}, "/description"),
        ({"name": "n", "template": "t" * 65_537}, "/template"),
        ({"name": "n", "template": "a\0"}, "/template"),
        ({"name": "n", "first_message": "f" * 16_385}, "/first_message"),
        ({"name": "n", "mode": "asleep"}, "/mode"),
        ({"name": "n", "mode": "autonomous"}, "/mode"),
        ({"name": "n", "colour": "red"}, "/colour"),
        ({"name": "n", "controls": []}, "/controls"),
        ({"name": "n", "is_active": None}, "/is_active"),
        ([], ""),
    ],
)
async def test_a_bad_persona_is_refused_with_the_field_named(http: httpx2.AsyncClient, body: object, at: str) -> None:
    problem(await http.post("/api/personas", json=body), 422, "invalid_request", at)


async def test_lone_surrogates_are_refused_with_the_field_named(http: httpx2.AsyncClient) -> None:
    raw = b'{"name": "n", "template": "\\ud800"}'

    answer = await http.post("/api/personas", content=raw, headers={"content-type": "application/json"})

    problem(answer, 422, "invalid_request", "/template")


@pytest.mark.parametrize(
    ("extra", "code", "at"),
    [
        ({"controls": {"warmth": 1}}, "unknown_control", "/controls/warmth"),
        ({"controls": {"temperature": 9}}, "invalid_control", "/controls/temperature"),
        ({"connection": "nowhere"}, "unknown_provider", None),
    ],
)
async def test_what_no_model_server_could_use_is_refused_at_once(
    http: httpx2.AsyncClient, persona: dict[str, Any], extra: dict[str, Any], code: str, at: str | None
) -> None:
    problem(await http.post("/api/personas", json={"name": f"N {uuid4()}"} | extra), 422, code, at)
    problem(await http.patch(f"/api/personas/{persona['id']}", json=extra), 422, code, at)


async def test_a_strangers_persona_is_not_there(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    path = f"/api/personas/{stranger.persona_id}"

    for method, body in (("GET", None), ("PUT", {}), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        problem(await http.request(method, path, json=body), 404, "not_found")
    listed = await http.get("/api/personas", params={"q": "Theirs", "limit": 100})
    assert str(stranger.persona_id) not in listed.text


async def make_module(http: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"name": f"m_{uuid4().hex[:12]}"} | fields
    return (await http.post("/api/modules", json=body)).raise_for_status().json()


async def test_modules_are_attached_by_id_or_name_in_order_and_each_once(
    http: httpx2.AsyncClient, persona: dict[str, Any]
) -> None:
    a, b, c = [await make_module(http) for _ in range(3)]
    path = f"/api/personas/{persona['id']}"

    attached = await http.patch(path, json={"modules": [c["name"], a["id"], c["id"], b["name"]]})
    assert attached.json()["modules"] == [c["id"], a["id"], b["id"]]
    assert (await http.get(path)).json()["modules"] == [c["id"], a["id"], b["id"]]

    detached = await http.patch(path, json={"modules": None})
    assert detached.json()["modules"] == []


async def test_a_module_that_is_not_there_or_a_strangers_is_not_attached(
    http: httpx2.AsyncClient, persona: dict[str, Any], stranger: Stranger
) -> None:
    path = f"/api/personas/{persona['id']}"
    for module in ("nothing_like_it", str(uuid4()), str(stranger.module_id), stranger.module_name):
        problem(await http.patch(path, json={"modules": [module]}), 404, "not_found", "/modules")
        made = await http.post("/api/personas", json={"name": f"N {uuid4()}", "modules": [module]})
        problem(made, 404, "not_found", "/modules")

    assert (await http.get(path)).json() == persona


async def test_what_a_template_names_is_told_and_unknown_modules_are_a_warning(
    http: httpx2.AsyncClient, persona: dict[str, Any]
) -> None:
    known, unknown = (await make_module(http))["name"], f"unknown_{uuid4().hex[:12]}"
    path = f"/api/personas/{persona['id']}"

    updated = await http.patch(path, json={"template": f"@{known} and @{unknown}"})

    assert updated.json()["references"] == [known, unknown]
    assert [warning["source"] for warning in updated.json()["warnings"]] == [f"@{unknown}"]
    await make_module(http, name=unknown)
    assert (await http.get(path)).json()["warnings"] == []


async def test_tools_are_kept_as_they_were_granted(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    path = f"/api/personas/{persona['id']}"
    tools = {"servers": {"files": {"enabled": True, "tools": {"read": "auto", "write": "ask"}}, "web": {}}}

    assert (await http.patch(path, json={"tools": tools})).json()["tools"] == tools
    for bad in ({"servers": {"files": {"tools": {"read": "maybe"}}}}, {"servers": []}, {"odd": 1}):
        assert (await http.patch(path, json={"tools": bad})).status_code == 422
    assert (await http.patch(path, json={"tools": None})).json()["tools"] == {}


async def test_a_copy_has_everything_but_the_name(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    module = await make_module(http)
    path = f"/api/personas/{persona['id']}"
    changes = {"modules": [module["id"]], "controls": {"temperature": 1}, "is_active": False, "template": "@x ${now}"}
    original = (await http.patch(path, json=changes)).json()

    copies = [await http.post(f"{path}/duplicate") for _ in range(2)]

    own = ("id", "name", "slug", "version", "created_at", "updated_at")
    for copy in copies:
        assert copy.status_code == 201
        assert (await http.get(copy.headers["location"])).json() == copy.json()
        assert {k: v for k, v in copy.json().items() if k not in own} == {
            k: v for k, v in original.items() if k not in own
        }
    assert [copy.json()["name"] for copy in copies] == [
        f"{persona['name']} (copy)",
        f"{persona['name']} (copy 2)",
    ]


async def test_a_copy_can_be_given_a_name_of_its_own(http: httpx2.AsyncClient, persona: dict[str, Any]) -> None:
    path = f"/api/personas/{persona['id']}/duplicate"
    name = f"Bob {uuid4()}"

    assert (await http.post(path, json={"name": name})).json()["name"] == name
    problem(await http.post(path, json={"name": name}), 409, "conflict", "/name")
    problem(await http.post(path, json={"name": " "}), 422, "invalid_request", "/name")


async def test_a_copy_of_a_very_long_name_still_has_a_name_that_fits(http: httpx2.AsyncClient) -> None:
    name = f"{uuid4()} ".ljust(100, "x")
    made = (await http.post("/api/personas", json={"name": name})).json()

    copy = (await http.post(f"/api/personas/{made['id']}/duplicate")).json()

    assert copy["name"] == f"{name[:93]} (copy)"


async def test_a_strangers_persona_cannot_be_copied(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    problem(await http.post(f"/api/personas/{stranger.persona_id}/duplicate"), 404, "not_found")


async def test_the_default_persona_answers_where_none_was_chosen(database_url: str) -> None:
    async with (
        running_service(local_settings(), database_url) as base_url,
        httpx2.AsyncClient(base_url=base_url) as http,
    ):
        assert (await http.post("/api/sessions", json={})).json()["persona_id"] is None
        body = {"name": "Ada", "is_default": True, "first_message": "Good morning."}
        ada = (await http.post("/api/personas", json=body)).json()
        bob = (await http.post("/api/personas", json={"name": "Bob"})).json()
        assert (ada["is_default"], bob["is_default"]) == (True, False)

        for door in ("sessions", "conversations"):
            session = (await http.post(f"/api/{door}")).json()
            assert session["persona_id"] == ada["id"]
            history = (await http.get(f"/api/sessions/{session['id']}/messages")).json()
            assert [message["content"] for message in history["items"]] == ["Good morning."]
        none = await http.post("/api/sessions", json={"persona_id": None})
        assert none.json()["persona_id"] is None

        await http.patch(f"/api/personas/{bob['id']}", json={"is_default": True})
        assert (await http.post("/api/sessions", json={})).json()["persona_id"] == bob["id"]
        assert (await http.get(f"/api/personas/{ada['id']}")).json()["is_default"] is False
        copy = (await http.post(f"/api/personas/{bob['id']}/duplicate")).json()
        assert copy["is_default"] is False

        await http.patch(f"/api/personas/{bob['id']}", json={"is_default": False})
        assert (await http.post("/api/sessions", json={})).json()["persona_id"] is None
