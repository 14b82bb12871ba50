"""Personas and modules as one file, over REST."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from db.ids import LOCAL_OWNER
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem
from tests.postgres import TestServer
from tests.service import local_settings, running_service

EXPORT, IMPORT = "/api/personas/export", "/api/personas/import"
EMPTY: dict[str, Any] = {"format": "colloquy-library", "version": 1, "modules": [], "personas": [], "images": {}}


@pytest.fixture(scope="module")
async def library_url(postgres: TestServer, migrated_template: str) -> AsyncGenerator[str, None]:
    """A database in which nobody else makes personas."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
async def library(library_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[str, None]:
    """The base URL of a service on that database."""
    data_dir: Path = tmp_path_factory.mktemp("library")
    async with running_service(local_settings(data_dir=data_dir), library_url) as base_url:
        yield base_url


@pytest.fixture
async def database(library_url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A look into the database from behind."""
    connection = await asyncpg.connect(library_url)
    yield connection
    await connection.close()


@pytest.fixture
async def http(library: str, database: asyncpg.Connection) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of `library`, whose owner has nothing."""
    await clear(database)
    async with httpx2.AsyncClient(base_url=library, timeout=20) as client:
        yield client


async def clear(database: asyncpg.Connection) -> None:
    await database.execute("delete from personas")
    await database.execute("delete from modules")


async def export(http: httpx2.AsyncClient) -> dict[str, Any]:
    return (await http.get(EXPORT)).raise_for_status().json()


async def put(http: httpx2.AsyncClient, file: dict[str, Any]) -> dict[str, str]:
    report = (await http.post(IMPORT, json=file)).raise_for_status().json()
    return {f"{item['kind']} {item['name']}": item["outcome"] for item in report["items"]}


def picture(shade: int = 0) -> str:
    written = BytesIO()
    Image.new("RGB", (4, 4), (shade, 1, 2)).save(written, "PNG")
    return b64encode(written.getvalue()).decode()


async def test_of_nothing_there_is_an_empty_file(http: httpx2.AsyncClient) -> None:
    exported = await http.get(EXPORT)

    assert exported.json() == EMPTY
    assert exported.headers["content-disposition"] == 'attachment; filename="colloquy-personas.json"'
    assert await put(http, EMPTY) == {}


async def test_what_was_made_comes_back_with_its_modules_and_picture(
    http: httpx2.AsyncClient, database: asyncpg.Connection
) -> None:
    for name, fields in {
        "mood": {"type": "advanced", "script": 'ctx.set_output("a", 1)', "trigger_pattern": "/x/s", "timeout_ms": 99},
        "style": {"content": "@mood", "execution_context": "ON_DEMAND", "is_active": False, "trigger_depth": 4},
    }.items():
        (await http.post("/api/modules", json={"name": name, **fields})).raise_for_status()
    upload = await http.post("/api/personas/upload-image", files={"file": ("x", b64decode(picture()))})
    ada = {
        "name": "Ada",
        "template": "@mood",
        "modules": ["style", "mood"],
        "image": upload.json()["image_path"],
        "tools": {"servers": {"web": {"tools": {"get": "ask"}}}},
        "controls": {"temperature": 1},
        "first_message": "Hello.",
    }
    before = (await http.post("/api/personas", json=ada)).raise_for_status().json()
    exported = await export(http)
    await clear(database)

    assert set((await put(http, exported)).values()) == {"created"}

    assert await export(http) == exported
    [after] = (await http.get("/api/personas")).json()["items"]
    same = ("name", "slug", "template", "image", "tools", "controls", "first_message", "references")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    modules = {module["id"]: module for module in (await http.get("/api/modules")).json()["items"]}
    assert [modules[module]["name"] for module in after["modules"]] == ["style", "mood"]
    assert modules[after["modules"][1]]["analysis"]["outputs"] == ["a"]
    assert (await http.get(after["image_url"])).status_code == 200


async def test_importing_twice_changes_nothing_and_says_so(http: httpx2.AsyncClient) -> None:
    file = EMPTY | {
        "modules": [{"name": "mood", "content": "calm"}],
        "personas": [{"name": "Ada", "modules": ["mood"], "image": "images/mine", "template": "@mood"}],
        "images": {"images/mine": picture(7)},
    }

    first, second = await put(http, file), await put(http, file)
    file["modules"] = [{"name": "mood", "content": "wild"}]
    third = await put(http, file)

    assert first == {"module mood": "created", "persona Ada": "created"}
    assert second == {"module mood": "unchanged", "persona Ada": "unchanged"}
    assert third == {"module mood": "updated", "persona Ada": "unchanged"}
    exported = await export(http)
    assert [module["content"] for module in exported["modules"]] == ["wild"]
    assert len(exported["personas"]) == 1


async def test_what_is_not_in_the_file_stays(http: httpx2.AsyncClient) -> None:
    await put(http, EMPTY | {"modules": [{"name": "old"}], "personas": [{"name": "Bob"}]})

    await put(http, EMPTY | {"modules": [{"name": "new"}], "personas": [{"name": "Ada", "modules": ["old"]}]})

    exported = await export(http)
    assert [module["name"] for module in exported["modules"]] == ["new", "old"]
    assert [persona["name"] for persona in exported["personas"]] == ["Ada", "Bob"]


async def test_a_slug_that_is_taken_is_replaced_and_one_that_is_there_stays(http: httpx2.AsyncClient) -> None:
    await put(http, EMPTY | {"personas": [{"name": "Bob", "slug": "ada"}]})

    await put(http, EMPTY | {"personas": [{"name": "Ada", "slug": "ada"}, {"name": "Bob", "slug": "robert"}]})

    assert {one["name"]: one["slug"] for one in (await export(http))["personas"]} == {"Ada": "ada-2", "Bob": "ada"}


async def test_a_model_server_that_is_not_here_is_a_warning(http: httpx2.AsyncClient) -> None:
    file = EMPTY | {"personas": [{"name": "Ada", "connection": "elsewhere"}]}

    report = (await http.post(IMPORT, json=file)).json()

    assert "elsewhere" in report["warnings"][0]
    assert (await export(http))["personas"][0]["connection"] == "elsewhere"


@pytest.mark.parametrize(
    ("change", "status", "code", "at"),
    [
        ({"format": "other"}, 422, "invalid_request", "/format"),
        ({"version": 2}, 422, "invalid_request", "/version"),
        ({"odd": 1}, 422, "invalid_request", "/odd"),
        ({"modules": [{"name": "Bad"}]}, 422, "invalid_request", "/modules/0/name"),
        ({"modules": [{"name": "a"}, {"name": "a"}]}, 422, "invalid_request", ""),
        ({"modules": [{"name": "a"}, {"name": "b", "script": "x ="}]}, 422, "invalid_script", "/modules/1/script"),
        ({"modules": [{"name": "a", "trigger_pattern": "//"}]}, 422, "invalid_trigger", "/modules/0/trigger_pattern"),
        ({"personas": [{"name": "A"}, {"name": "A"}]}, 422, "invalid_request", ""),
        ({"personas": [{"name": "A", "mode": "autonomous"}]}, 422, "invalid_request", "/personas/0/mode"),
        ({"personas": [{"name": "A", "slug": "../x"}]}, 422, "invalid_request", "/personas/0/slug"),
        (
            {"personas": [{"name": "A", "controls": {"warmth": 1}}]},
            422,
            "unknown_control",
            "/personas/0/controls/warmth",
        ),
        ({"personas": [{"name": "A", "modules": ["nothing"]}]}, 404, "not_found", "/personas"),
        ({"personas": [{"name": "A", "image": "images/x"}]}, 404, "not_found", "/personas/0/image"),
        (
            {"personas": [{"name": "A", "image": "x"}], "images": {"x": "!"}},
            422,
            "invalid_request",
            "/images/x",
        ),
        (
            {"personas": [{"name": "A", "image": "x"}], "images": {"x": b64encode(b"<svg/>").decode()}},
            422,
            "invalid_request",
            "/images/x",
        ),
    ],
)
async def test_a_file_with_anything_wrong_changes_nothing(
    http: httpx2.AsyncClient, change: dict[str, Any], status: int, code: str, at: str
) -> None:
    file = EMPTY | {"modules": [{"name": "good"}], "personas": [{"name": "Good"}]} | change

    problem(await http.post(IMPORT, json=file), status, code, at)

    assert await export(http) == EMPTY


async def test_strangers_are_neither_exported_nor_overwritten_nor_attached(
    http: httpx2.AsyncClient, database: asyncpg.Connection, stranger: Stranger
) -> None:
    assert await export(http) == EMPTY
    attached = EMPTY | {"personas": [{"name": "Ada", "modules": [stranger.module_name]}]}
    problem(await http.post(IMPORT, json=attached), 404, "not_found", "/personas")

    await put(http, EMPTY | {"modules": [{"name": stranger.module_name, "content": "mine"}]})
    await put(http, EMPTY | {"personas": [{"name": "Theirs", "template": "mine"}]})

    theirs = await database.fetchval("select content from modules where id = $1", stranger.module_id)
    assert theirs == ""
    assert await database.fetchval("select template from personas where id = $1", stranger.persona_id) == ""


async def test_files_imported_at_the_same_moment_make_no_duplicates(http: httpx2.AsyncClient) -> None:
    file = EMPTY | {"modules": [{"name": "mood"}], "personas": [{"name": "Ada", "modules": ["mood"]}]}

    reports = await asyncio.gather(*(put(http, file) for _ in range(4)))

    assert sorted(report["persona Ada"] for report in reports) == ["created", "unchanged", "unchanged", "unchanged"]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
names = st.from_regex(r"\A[a-z][a-z0-9_]{0,12}\Z")
modules = st.fixed_dictionaries(
    {"name": names},
    optional={
        "description": texts,
        "type": st.sampled_from(["simple", "advanced"]),
        "content": texts,
        "trigger_pattern": st.none() | st.sampled_from(["", "*", "rain | snow", "/^x$/im"]),
        "trigger_depth": st.integers(1, 50),
        "execution_context": st.sampled_from(["IMMEDIATE", "POST_RESPONSE", "ON_DEMAND"]),
        "timeout_ms": st.none() | st.integers(10, 300_000),
        "is_active": st.booleans(),
    },
)


def _name_of(item: Any) -> str:
    return item["name"]


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Any file that can be imported."""
    drawn = draw(st.lists(modules, max_size=4, unique_by=_name_of))
    known = [module["name"] for module in drawn]
    personas = st.fixed_dictionaries(
        {"name": texts.map(str.strip).filter(bool)},
        optional={
            "slug": st.from_regex(r"\A[a-z0-9]{1,9}\Z"),
            "description": texts,
            "template": texts | st.sampled_from([f"@{name}" for name in known] or ["@x"]),
            "first_message": st.none() | texts,
            "connection": st.none() | st.just("demo"),
            "model": st.none() | st.just("small"),
            "controls": st.sampled_from([{}, {"temperature": 0.5}]),
            "tools": st.sampled_from([{}, {"servers": {"web": {}}}, {"servers": {"web": {"enabled": False}}}]),
            "modules": st.lists(st.sampled_from(known), unique=True) if known else st.just([]),
            "image": st.none() | st.sampled_from(["images/a", "images/b"]),
            "is_active": st.booleans(),
        },
    )
    people: list[dict[str, Any]] = draw(st.lists(personas, max_size=3, unique_by=_name_of))
    return EMPTY | {"modules": drawn, "personas": people, "images": {"images/a": picture(1), "images/b": picture(2)}}


@given(file=files())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_export_import_export_gives_the_same_file(
    http: httpx2.AsyncClient, database: asyncpg.Connection, file: dict[str, Any]
) -> None:
    await clear(database)
    await put(http, file)
    exported = await export(http)
    assert set((await put(http, exported)).values()) <= {"unchanged"}
    await clear(database)
    await database.execute("update users set default_persona_id = null where id = $1", LOCAL_OWNER)

    assert set((await put(http, exported)).values()) <= {"created"}

    assert await export(http) == exported
